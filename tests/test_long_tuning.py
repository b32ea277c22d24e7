"""Streaming long tuning: training's videos are inference's, clip by clip."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from test_distillation import FLOW, folder, make_config, make_method  # noqa: F401

from jaxvid.convert import rules as names
from jaxvid.data import loaders
from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.data.shapes import captions, scene
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError
from jaxvid.models import vae
from jaxvid.stream import stream, switch
from jaxvid.training import (
  checkpoint,
  distillation,
  long_tuning,
  loop,
  shapes,
)
from jaxvid.training.distill_config import DistillData, LongConfig
from jaxvid.training.lora import LoRAConfig
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.rollout import RolloutConfig

LORA = LoRAConfig(rank=2, alpha=2.0)
LONG = LongConfig(latents=12, overlap=1)
CODEC = vae.VAEConfig(
  dim=4,
  z_dim=4,
  num_res_blocks=1,
  latent_mean=(0.0,) * 4,
  latent_std=(1.0,) * 4,
)


@pytest.fixture
def config(folder):  # noqa: F811
  def make(**changes):
    defaults = {
      'long': LONG,
      'sink': 2,
      'window': 4,
      'schedule': Spec('1000,500'),
      'rollout': RolloutConfig(chunks=3, gradient_chunks=3, exits='last'),
    }
    return make_config(folder, **(defaults | changes))

  return make


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  batch = {}
  for name in ('', 'next_'):
    batch[f'{name}ids'] = rng.integers(3, 90, (2, 32)).astype(np.int32)
    batch[f'{name}mask'] = np.ones((2, 32), bool)
  return batch


def _shapes(config, codec=None):
  method = make_method(config, codec)
  init = functools.partial(distillation.init, config)
  state = jax.eval_shape(
    lambda key: method.create(init(key)), jax.random.key(0)
  )
  held = jax.eval_shape(lambda: distillation.frozen(config))
  if codec is not None:
    held['vae'] = jax.eval_shape(lambda: vae.init(codec, jax.random.key(0)))
  return method, state, held


ARMS = {
  'kv gradient, noisy memory': {
    'long': LongConfig(12, kv_gradient=True),
    'schedule': Spec('432'),
  },
  'the schedule again': {
    'long': LongConfig(12, again=True),
    'schedule': Spec('432'),
  },
  'none': {'long': LongConfig(12, cache='none')},
  'unrolled adapters': {'lora': LORA, 'scan': False},
  'flow': {'flow': FLOW, 'target': 'gradient'},
  'causal teacher': {'scored': 'chunks'},
}


@pytest.mark.parametrize('arm', ARMS)
def test_every_arm_is_a_step(config, arm):
  """Traced, not run: the state keeps its shapes, the metrics are there."""
  method, state, held = _shapes(config(**ARMS[arm]))
  after, metrics = jax.eval_shape(
    method.update, state, held, make_batch(), jax.random.key(1)
  )
  assert jax.tree.structure(after) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
  assert {'loss', 'student_loss', 'critic_loss'} <= set(metrics)


def test_a_clip_may_begin_as_a_video_does(config):
  method, state, held = _shapes(config(vae=''), CODEC)
  jax.eval_shape(method.update, state, held, make_batch(), jax.random.key(1))


def _extend(config, frozen, gradient):
  negative = np.zeros((1, 32), np.int32), np.zeros((1, 32), bool)

  def run(student, video, batch, key):
    return long_tuning.extend(
      config, None, student, frozen, video, batch, negative, key, gradient
    )

  return run


def test_prompts_change_to_and_fro(config):
  settings = config(long=LongConfig(latents=28, every=2), scan=False)
  frozen = distillation.frozen(settings)
  student = distillation.load(settings)['dit']
  run = jax.jit(_extend(settings, frozen, False))
  count = long_tuning.clip_count(settings)
  video, batch, told = long_tuning.empty(settings), make_batch(), []
  for i in range(count + 1):
    video, _, texts = run(student, video, batch, jax.random.key(i))
    told.append(np.asarray(texts.prompt))
    if i == 0:
      first = video
  assert 1 <= first.switch <= 2 and count == 6
  for i, prompt in enumerate(told[:count]):
    odd = i >= first.switch and (i - int(first.switch)) // 2 % 2 == 0
    expected = first.follow if odd else first.prompt
    np.testing.assert_array_equal(prompt, expected)
  assert video.clip == 1  # The next begins with its own prompt again.
  np.testing.assert_array_equal(told[-1], first.prompt)


@pytest.mark.parametrize(
  'long, schedule',
  [
    (LONG, '1000,500'),
    (dataclasses.replace(LONG, kv_gradient=True), '1000,500'),
    # Two switches, so that the second re-cache takes chunks of either side of
    # the first one at the levels that they were kept at.
    (LongConfig(latents=16, every=1, again=True), '32'),
  ],
  ids=['plain', 'kv gradient', 'again'],
)
def test_videos_are_those_of_inference(config, long, schedule):
  """The same noise, the same switches, across clips; twice in a row."""
  settings = config(long=long, schedule=Spec(schedule), scan=False)
  frozen = distillation.frozen(settings)
  student = distillation.load(settings)['dit']
  run = jax.jit(_extend(settings, frozen, True))
  count = long_tuning.clip_count(settings)
  videos, made = [long_tuning.empty(settings)], []
  for i in range(count + 1):
    video, clip, texts = run(
      student, videos[-1], make_batch(), jax.random.key(i)
    )
    videos.append(video)
    made.append((clip, texts))
  first, end = videos[1], videos[count]
  assert first.switch == first.clip == 1 and end.chunk == 1 + 2 * count
  assert videos[-1].clip == 1  # The last begins another video.
  plain = settings.stream(settings.schedule)
  change = switch.SwitchConfig(again=long.again)
  state = stream.init(
    plain, student, first.prompt, jax.random.wrap_key_data(first.key)
  )
  past, expected, starts = switch.new_past(plain, state), [], [0]
  step = jax.jit(functools.partial(stream.step, plain))
  for i in range(1 + 2 * count):
    if i >= 3 and i % 2:
      turn = (i - 1) // 2 % 2
      prompt = first.follow if turn else first.prompt
      np.testing.assert_array_equal(made[(i - 1) // 2][1].prompt, prompt)
      text = stream.encode_prompt(plain, student, prompt)
      state, past = switch.switch(
        plain, student, state, past, text, change, starts
      )
      starts += [i] if long.again else []
    ticks = stream.chunk_ticks(plain.schedule, i - starts[-1])
    state, x0 = step(student, state, ticks)
    past = switch.remember(plain, past, state, x0)
    expected.append(x0)
  expected = jnp.concatenate(expected, 1)
  for i, (clip, _) in enumerate(made[:count]):
    new = [i == 0] * 2 + [True] * 4
    assert clip.mask.tolist() == [new, new]
    x = expected[:, 4 * i : 4 * i + 6]
    np.testing.assert_allclose(clip.x, x, atol=2e-5)


def test_gradient_comes_from_the_new_chunks_alone(config):
  settings = config()
  frozen = distillation.frozen(settings)
  student = distillation.load(settings)['dit']
  run = _extend(settings, frozen, True)
  batch, key = make_batch(), jax.random.key(0)
  video = jax.jit(_extend(settings, frozen, False))(
    student, long_tuning.empty(settings), batch, key
  )[0]

  @jax.jit
  def slope(student, frames):
    def total(student):
      clip = run(student, video, batch, key)[1]
      return jnp.sum(jnp.where(frames[:, None, None, None], clip.x, 0) ** 2)

    grads = jax.grad(total)(student)
    return sum(jnp.sum(jnp.abs(g)) for g in jax.tree.leaves(grads))

  shown = jnp.arange(6) < 2
  assert slope(student, shown) == 0 and slope(student, ~shown) > 0


def _sizes(jaxpr):
  """Numbers in all arrays that a program makes, also in its loops."""
  total = 0
  for equation in jaxpr.eqns:
    total += sum(int(np.prod(v.aval.shape)) for v in equation.outvars)
    for inner in jaxprs_in_params(equation.params):
      total += _sizes(inner)
  return total


def _program(config):
  method, state, held = _shapes(config)
  batch = make_batch()
  return jax.make_jaxpr(method.update)(state, held, batch, jax.random.key(0))


def test_memory_does_not_depend_on_the_length_of_the_video(config):
  """Short and long videos are one program; naive tuning grows with them."""
  short, long = (
    _sizes(_program(config(long=LongConfig(latents))).jaxpr)
    for latents in (12, 12_000)
  )
  assert short == long
  naive = [
    _sizes(
      _program(config(long=None, rollout=RolloutConfig(n, n), window=4)).jaxpr
    )
    for n in (3, 12)
  ]
  # The networks and their optimisers are as large as ever.
  assert naive[1] > 1.5 * naive[0]


def test_runs_resume_in_the_middle_of_their_videos(config, tmp_path):
  settings = config(lora=LORA, data=DistillData(batch=2))
  task = distillation.distill_task(settings)
  run = loop.LoopConfig(
    steps=3,
    save_every=2,
    save_minutes=0.0,
    log_every=1,
    optimizer=OptimizerConfig(warmup_steps=0),
  )
  a = loop.train(run, task, tmp_path / 'a')
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  shutil.rmtree(tmp_path / 'b' / 'checkpoints' / '3')  # Killed before that.
  b = loop.train(run, task, tmp_path / 'b')
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert a.opt_state['video'].clip > 0
  # Adapters, and nothing else, are trained and kept.
  _, kept = checkpoint.load_params(tmp_path / 'b', 'params')
  leaves = names.flatten({n: kept[n] for n in ('dit', 'critic')})
  assert all('/lora_' in name for name in leaves)
  moved = [jnp.abs(x).max() for n, x in leaves.items() if 'lora_B' in n]
  assert all(x > 0 for x in moved)
  _, shipped = distillation.exported(settings, a.ema)
  before = distillation.part(settings.weights.student, 'dit', False)
  q = [p['blocks_0']['self_attn']['q'] for p in (shipped['dit'], before)]
  assert jnp.abs(q[0]['kernel'] - q[1]['kernel']).max() > 0
  np.testing.assert_array_equal(q[0]['bias'], q[1]['bias'])


def test_prompts_come_in_pairs(tmp_path):
  tokenizer = Tokenizer.load(shapes.TOKENIZER, 48)
  batches = loaders.pair_batches(PromptConfig(), tokenizer, batch=4, seed=0)
  batch = next(batches)
  assert batch['ids'].shape == batch['next_ids'].shape == (4, 48)
  assert (batch['ids'] != batch['next_ids']).any(1).all()
  from jaxvid.data import prompt_sources

  source = prompt_sources.open_pairs(PromptConfig())[0]
  for i in range(3):
    before, after = map(captions.parse, source[i])
    assert before != after and len(before.objects) == len(after.objects)
  # Nothing that stands still can move otherwise.
  stuck = scene.SceneSettings(motions=('still',), changes=('motion',))
  with pytest.raises(UserError, match='no scene in which anything changes'):
    prompt_sources.open_pairs(PromptConfig(scenes=stuck))[0][0]
  lines = tmp_path / 'a.txt', tmp_path / 'b.txt'
  lines[0].write_text('one\ntwo\n')
  lines[1].write_text('three\nfour\n')
  config = PromptConfig(str(lines[0]), follow_ups=str(lines[1]))
  assert prompt_sources.open_pairs(config)[0][1] == ['two', 'four']
  lines[1].write_text('three\n')
  with pytest.raises(UserError, match='holds 1 follow-ups for 2'):
    prompt_sources.open_pairs(config)
  with pytest.raises(UserError, match=r'needs prompts\.follow_ups'):
    prompt_sources.open_pairs(PromptConfig(str(lines[0])))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'rollout': RolloutConfig(4, 3)}, 'one clip'),
    ({'long': LongConfig(12, overlap=3)}, 'leaves nothing new'),
    ({'long': LongConfig(4)}, 'shorter than a clip'),
    ({'digits': '12'}, 'no digits'),
    ({'flow': FLOW}, "must be 'gradient'"),
  ],
)
def test_impossible_choices_are_refused(config, changes, words):
  with pytest.raises(UserError, match=words):
    config(**changes)


@pytest.mark.parametrize(
  'changes', [{'overlap': 0}, {'switches': 1.5}, {'every': -1}]
)
def test_impossible_lengths_are_refused(changes):
  with pytest.raises(UserError, match=r'long\.'):
    LongConfig(**changes)
