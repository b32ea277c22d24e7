"""Distilling students: every published row is one set of choices."""

import dataclasses
import functools
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import specs
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError
from jaxvid.models import vae
from jaxvid.models.dit import DiTConfig
from jaxvid.models.layers import stack_layers
from jaxvid.models.text import TextConfig
from jaxvid.objectives.flow_distribution import FlowDistributionConfig
from jaxvid.storage import weights
from jaxvid.training import (
  checkpoint,
  clips,
  distillation,
  loop,
  matching,
  report,
  scores,
  shapes,
)
from jaxvid.training.distill_config import (
  DistillConfig,
  DistillData,
  Weights,
)
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.rollout import RolloutConfig

DIT = DiTConfig(
  dim=24,
  ffn_dim=32,
  num_heads=2,
  num_layers=2,
  freq_dim=16,
  text_dim=8,
  text_len=32,
  in_dim=4,
  out_dim=4,
)
TEXT = TextConfig(
  vocab_size=shapes.VOCABULARY,
  dim=8,
  dim_attn=8,
  dim_ffn=16,
  num_heads=2,
  num_layers=2,
)


def random(kind, config, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: 0.2 * rng.standard_normal(x.shape, np.float32),
    specs.abstract(kind, config),
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('weights')
  heads = {'dit': dataclasses.asdict(DIT), 'text': dataclasses.asdict(TEXT)}
  for seed, name in enumerate(('student', 'teacher')):
    params = {'dit': random('dit', DIT, seed), 'text': random('text', TEXT, 7)}
    weights.save(folder / name, params, heads)
  return folder


def make_config(folder, **changes) -> DistillConfig:
  names = {
    'student': str(folder / 'student'),
    'teacher': str(folder / 'teacher'),
  }
  parts = {
    'dit': DIT,
    'text': TEXT,
    'tokenizer': shapes.TOKENIZER,
    'weights': Weights(**names),
    'data': DistillData(batch=2),
    'size': (4, 4),
    'schedule': Spec('32'),
    'sink': 0,
    'window': 4,
    'chunk': 2,
    'rollout': RolloutConfig(chunks=2, gradient_chunks=2),
    'generator_every': 2,
  }
  return DistillConfig(**(parts | changes))


FLOW = FlowDistributionConfig()
REAL = DistillData(latents='somewhere', batch=2)
LONG = RolloutConfig(chunks=4, gradient_chunks=2)
ROWS = {
  'self_forcing': {'schedule': Spec('self_forcing')},
  'diagdistill': {'flow': FLOW},
  'random_digits': {'flow': FLOW, 'digits': '1234'},
  'release': {'flow': FLOW, 'target': 'gradient'},
  'ode_target': {
    'flow': FLOW,
    'target': 'teacher',
    'target_schedule': Spec('teacher', steps=2, solver='euler'),
  },
  'causvid': {
    'schedule': Spec('causvid'), 'history': 'diffusion', 'data': REAL,
  },
  'teacher_forcing': {'history': 'teacher', 'data': REAL},
  'diagonal_forcing': {
    'data': REAL,
    'rollout': RolloutConfig(chunks=2, gradient_chunks=2, truth_after=1),
  },
  'sid': {'objective': 'sid'},
  'gan': {'objective': 'gan', 'layers': (0, 1), 'data': REAL},
  'by_chunks': {'scored': 'chunks', 'flow': FLOW, 'target': 'gradient'},
  'causvid_by_chunks': {
    'history': 'diffusion', 'data': REAL, 'scored': 'chunks',
  },
  'frames_by_chunks': {
    'chunk': 1, 'scored': 'chunks', 'scored_chunk': 2,
    'rollout': RolloutConfig(chunks=4, gradient_chunks=4),
  },
  'long': {'rollout': LONG},
  'frame_by_frame': {
    'chunk': 1, 'rollout': RolloutConfig(chunks=3, gradient_chunks=3),
  },
}  # fmt: skip


def make_batch(config: DistillConfig):
  rng = np.random.default_rng(0)
  batch = {
    'ids': rng.integers(3, 90, (2, 32)).astype(np.int32),
    'mask': np.ones((2, 32), bool),
  }
  if config.data.latents:
    frames = config.rollout.chunks * config.chunk
    clips = rng.standard_normal((2, frames, 4, 4, 4))
    batch['latents'] = clips.astype(np.float16)
  return batch


def make_method(config: DistillConfig, codec=None, steps=4):
  settings = loop.LoopConfig(
    steps=steps, optimizer=OptimizerConfig(warmup_steps=0)
  )
  negative = np.zeros((1, 32), np.int32), np.zeros((1, 32), bool)
  return matching.method(config, settings, negative, codec)


@pytest.mark.parametrize('row', ROWS)
def test_every_row_is_a_step(folder, row):
  """Traced, not run: the state keeps its shapes, the metrics are there."""
  config = make_config(folder, **ROWS[row])
  method = make_method(config)
  init = functools.partial(distillation.init, config)
  state = jax.eval_shape(
    lambda key: method.create(init(key)), jax.random.key(0)
  )
  held = jax.eval_shape(lambda: distillation.frozen(config))
  after, metrics = jax.eval_shape(
    method.update, state, held, make_batch(config), jax.random.key(1)
  )
  assert jax.tree.structure(after) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
  assert {'loss', 'grad_norm', 'student_loss', 'critic_loss'} <= set(metrics)


def test_a_chunk_is_scored_behind_the_clean_ones_before_it(folder):
  config = make_config(folder, scored='chunks', guidance=3.0)
  params = distillation.part(config.weights.teacher, 'dit', True)
  keys = jax.random.split(jax.random.key(0), 4)
  x, clean = (jax.random.normal(key, (2, 6, 4, 4, 4)) for key in keys[:2])
  texts = scores.Texts(*(jax.random.normal(k, (2, 32, 8)) for k in keys[2:]))

  @jax.jit
  def chunks(x, clean):
    past = scores.past_of(config, clean)
    v = scores.guided(config, params, texts, past)(x, jnp.full(2, 700.0))
    return v.reshape(2, 3, -1)

  def changed(a, b):
    return (jnp.abs(a - b).max((0, 2)) > 1e-6).tolist()

  before = chunks(x, clean)
  assert before.shape == (2, 3, 2 * 64)
  assert changed(chunks(x.at[:, 2:4].add(1), clean), before) == [
    False, True, False,
  ]  # fmt: skip
  assert changed(chunks(x, clean.at[:, 2:4].add(1)), before) == [
    False, False, True,
  ]  # fmt: skip


@pytest.mark.parametrize('history', ['self', 'teacher'])
def test_chunks_are_scored_behind_what_the_student_saw(folder, history):
  real = DistillData(latents='somewhere', batch=2)
  config = make_config(folder, scored='chunks', history=history, data=real)
  student = distillation.part(config.weights.student, 'dit', True)
  latents = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 4))
  text = jax.random.normal(jax.random.key(1), (2, 32, 8))
  texts = scores.Texts(text, text)

  @jax.jit
  def make(latents):
    inputs = None, texts, latents
    return clips.make_clip(
      config, None, student, inputs, jax.random.key(2), False
    )

  clip = make(latents)
  np.testing.assert_array_equal(
    clip.past, latents if history == 'teacher' else clip.x
  )
  assert jnp.abs(clip.x - latents).max() > 0.1


def test_a_frame_before_the_clip_becomes_its_first_latent(folder):
  still, unit = (0.0,) * 4, (1.0,) * 4
  codec = vae.VAEConfig(
    dim=4, z_dim=4, num_res_blocks=1, latent_mean=still, latent_std=unit
  )
  config = make_config(folder, rollout=LONG, vae='somewhere')
  x = jnp.zeros((2, 4, 4, 4, 4))
  before = jax.random.normal(jax.random.key(1), x[:, :3].shape)

  @jax.jit
  def anchored(x, before):
    held = {'vae': vae.init(codec, jax.random.key(0))}
    clip = clips.Clip(x, None, None)
    return clips._anchored(config, codec, held, clip, before)

  out = anchored(x, before)
  assert out.mask.tolist() == [[False, False, True, True]] * 2
  assert jnp.abs(out.x[:, 0]).max() > 0
  np.testing.assert_array_equal(out.x[:, 1:], x[:, 1:])


def test_a_run_learns_in_turns_resumes_and_its_student_can_be_shipped(
  folder, tmp_path, monkeypatch
):
  flow = {'flow': FLOW, 'target': 'gradient'}
  config = make_config(folder, **flow, critic_first=1)
  task = distillation.distill_task(config)
  run, said = tmp_path / 'run', []
  monkeypatch.setattr(
    report.Summaries, 'scalars', lambda _, step, values: said.append(values)
  )
  settings = loop.LoopConfig(
    steps=3,
    save_every=1,
    save_minutes=0.0,
    keep=3,
    log_every=1,
    optimizer=OptimizerConfig(warmup_steps=0),
  )
  whole = loop.train(settings, task, run)
  again = loop.train(settings, task, run)  # nothing left to do
  jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
  steps = []
  for step in (3, 2, 1):
    steps.insert(0, checkpoint.load_params(run, 'params')[1])
    shutil.rmtree(run / 'checkpoints' / str(step))
  steps.insert(0, distillation.load(config))

  def moved(name):
    """Whether a network changed, step by step."""
    trees = [jax.tree.leaves(params[name]) for params in steps]
    return [
      any(bool((x != y).any()) for x, y in zip(*pair, strict=True))
      for pair in itertools.pairwise(trees)
    ]

  assert moved('critic') == [True, True, True]
  # The critic goes first; then the student learns every second time.
  assert moved('dit') == moved('motion') == [False, True, False]
  learnt = [bool(np.isfinite(m.get('student_loss', np.nan))) for m in said]
  assert learnt == [False, True, False]
  assert all(np.isfinite(m['loss']) and m['grad_norm'] > 0 for m in said)
  head, params = distillation.exported(config, whole.ema)
  weights.save(tmp_path / 'student', params, head)
  shipped = distillation.part(str(tmp_path / 'student'), 'dit', True)
  jax.tree.map(np.testing.assert_array_equal, shipped, whole.ema['dit'])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(shipped))
  text = distillation.part(str(folder / 'student'), 'text', False)
  jax.tree.map(np.testing.assert_array_equal, text, params['text'])
  assert stack_layers(params['dit'])['blocks'].keys()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'objective': 'gan'}, 'layers'),
    ({'history': 'teacher'}, 'data.latents'),
    ({'digits': '60'}, '1 to 5'),
    ({'generator_every': 0}, 'generator_every'),
    ({'critic_first': -1}, 'critic_first'),
    ({'scored': 'chunks', 'objective': 'gan', 'layers': (0,)}, 'chunks'),
    ({'scored': 'chunks', 'scored_chunk': 3}, 'scored_chunk=3'),
    ({'teacher_dit': dataclasses.replace(DIT, out_dim=8)}, '8 channels'),
    ({'objective': 'sid', 'flow': FLOW}, "objective 'dmd'"),
  ],
)
def test_impossible_choices_are_refused(folder, changes, words):
  with pytest.raises(UserError, match=words):
    make_config(folder, **changes)


def test_weights_without_the_network_are_refused(folder, tmp_path):
  with pytest.raises(UserError, match='no weights'):
    distillation.part(str(tmp_path / 'nowhere'), 'dit', True)
  with pytest.raises(UserError, match="no 'vae'"):
    distillation.part(str(folder / 'student'), 'vae', True)
