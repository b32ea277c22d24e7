"""Initialisers of few-step students: ODE regression and consistency."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import config as config_lib
from jaxvid import config_files
from jaxvid.convert import specs
from jaxvid.diffusion import describe
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.objectives.consistency import ConsistencyConfig
from jaxvid.storage import weights
from jaxvid.stream import stream, trajectory
from jaxvid.tasks import bundle, train
from jaxvid.training import consistency, diffusion, loop, ode, shapes, student
from jaxvid.training.consistency import ConsistencyTraining
from jaxvid.training.ode import ODEConfig
from jaxvid.training.optimizer import OptimizerConfig

with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  from jaxvid.data import shards, trajectories

FRAMES = 4
DIT = DiTConfig(
  dim=24,
  ffn_dim=32,
  num_heads=2,
  num_layers=1,
  freq_dim=16,
  text_dim=8,
  text_len=6,
  in_dim=4,
  out_dim=4,
)
TEXT = TextConfig(
  vocab_size=shapes.VOCABULARY,
  dim=8,
  dim_attn=8,
  dim_ffn=16,
  num_heads=2,
  num_layers=1,
)
MODEL = {
  'dit': DIT,
  'text': TEXT,
  'tokenizer': shapes.TOKENIZER,
  'weights': 'nowhere',
  'chunk': 2,
}
SPEC = describe.Spec('1000,500', shift=3.0)
LEVELS = (1000.0, 750.0)
LOOP = loop.LoopConfig(
  steps=2,
  log_every=1,
  save_minutes=0.0,
  optimizer=OptimizerConfig(warmup_steps=0, weight_decay=0.0),
)


def ode_config(**changes):
  parts = {'pairs': 'nowhere', 'batch': 2, 'frames': FRAMES, 'schedule': SPEC}
  return ODEConfig(**(MODEL | parts | changes))


def consistency_config(**changes):
  data = diffusion.DataConfig('nowhere', 2, FRAMES, text_drop=0.0)
  grid = ConsistencyConfig(steps=4, weighting='step', distance='huber')
  parts = {'data': data, 'consistency': grid, **MODEL}
  return ConsistencyTraining(**(parts | changes))


@functools.cache
def random_params():
  """`{'dit', 'text'}`, random everywhere, so that no zero hides anything."""
  config = diffusion.DiffusionConfig(
    DIT, TEXT, shapes.TOKENIZER, diffusion.DataConfig('')
  )
  tree = jax.eval_shape(lambda: diffusion.init(config, jax.random.key(0)))
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: 0.3 * rng.standard_normal(x.shape).astype(np.float32), tree
  )


def prompts():
  rng = np.random.default_rng(0)
  ids = rng.integers(3, 90, (2, 6)).astype(np.int32)
  return {'ids': ids, 'mask': np.arange(6)[None] < np.array([[6], [3]])}


def noise():
  return jax.random.normal(jax.random.key(3), (2, FRAMES, 4, 4, 4))


def encoded(config):
  frozen, batch = {'text': random_params()['text']}, prompts()
  return student.encode(config, frozen, batch['ids'], batch['mask'])


def regression_error(config, kept):
  """Of the very model that made the trajectories."""
  frozen = {'text': random_params()['text']}
  params = {'dit': random_params()['dit']}
  batch = {'trajectory': kept, **prompts()}
  run = jax.jit(functools.partial(ode.loss, config))
  return run(frozen, params, batch, jax.random.key(0))[0]


def test_one_step_of_a_causal_model_is_learnt_already():
  """Training sees the causal pairs just as the stream that made them."""
  spec = describe.Spec('1', commit='clean')
  config = ode_config(schedule=spec, form='causal')
  settings = stream.Settings(
    DIT, MemoryConfig(2, 2, 0, FRAMES, 2), describe.build(spec)
  )
  path = trajectory.path_through((1000.0,), 1, 5.0)
  text = encoded(config)

  @jax.jit
  def make(params, noise):
    state = stream.init(settings, params, text, jax.random.key(0))
    return trajectory.causal(settings, params, state, noise, path)

  kept = make(random_params()['dit'], noise())
  assert regression_error(config, kept) < 1e-9
  # With the past at its drawn level instead, it would not be.
  other = dataclasses.replace(config, form='parallel')
  assert regression_error(other, kept) > 1e-3


def test_one_step_of_the_teacher_is_learnt_already():
  spec = describe.Spec('1')
  config = ode_config(schedule=spec, chunk=FRAMES)
  settings = stream.Settings(
    DIT, MemoryConfig(2, 2, 0, FRAMES, FRAMES), describe.build(spec)
  )
  path = trajectory.path_through((1000.0,), 1, 5.0)

  @jax.jit
  def make(params, noise):
    text = stream.encode_prompt(settings, params, encoded(config))
    return trajectory.clip(settings, params, text, noise, path)

  kept = make(random_params()['dit'], noise())
  assert regression_error(config, kept) < 1e-9


def still(before, after):
  """Leaves that did not move."""
  return [
    jax.tree_util.keystr(path)
    for (path, old), new in zip(
      jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    )
    # Adding the same to every key of a head changes no softmax.
    if np.array_equal(old, new) and "['k']['bias']" not in str(path)
  ]


def moved(task, frozen, batch):
  """State of a task after one step from random parameters."""
  method = task.method(LOOP)
  state = method.create({'dit': random_params()['dit']})
  update = jax.jit(method.update)
  return update(state, frozen, batch, jax.random.key(1))


def pair_batch():
  kept = jnp.stack([noise(), 0.7 * noise(), 0.1 * noise()], 1)
  return {'trajectory': kept.astype(jnp.float16), **prompts()}


def latent_batch():
  return {
    'latents': np.asarray(noise(), np.float16),
    'weight': np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32),
    **prompts(),
  }


def test_regression_moves_the_transformer_alone():
  task = ode.ode_task(ode_config(form='causal'))
  frozen = {'text': random_params()['text']}
  state, metrics = moved(task, frozen, pair_batch())
  assert set(state.params) == set(state.ema) == {'dit'}
  assert not still({'dit': random_params()['dit']}, state.params)
  assert {'error_1000', 'error_750', 'loss', 'grad_norm'} <= set(metrics)


def test_consistency_moves_the_transformer_alone():
  task = consistency.consistency_task(consistency_config())
  frozen = {'text': random_params()['text'], 'teacher': random_params()['dit']}
  state, metrics = moved(task, frozen, latent_batch())
  assert set(state.params) == {'dit'}
  assert not still({'dit': random_params()['dit']}, state.params)
  assert np.isfinite(metrics['loss'])


@pytest.mark.parametrize(
  'make',
  [
    lambda: ode.ode_task(ode_config(form='parallel', clean=True, scan=True)),
    lambda: consistency.consistency_task(
      consistency_config(target='student', guidance=1.0, scan=True)
    ),
  ],
  ids=['regression', 'consistency'],
)
def test_other_choices_trace(make):
  task = make()
  method = task.method(LOOP)
  state = jax.eval_shape(lambda: method.create(task.init(jax.random.key(0))))
  frozen = {'text': random_params()['text'], 'teacher': state.params['dit']}
  batch = {**pair_batch(), **latent_batch()}
  after, _ = jax.eval_shape(
    method.update, state, frozen, batch, jax.random.key(0)
  )
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.fixture
def start(tmp_path):
  """A folder of weights to start from."""
  head = {'dit': dataclasses.asdict(DIT), 'text': dataclasses.asdict(TEXT)}
  weights.save(tmp_path / 'start', random_params(), head)
  return str(tmp_path / 'start')


@pytest.fixture
def pairs(tmp_path):
  folder = tmp_path / 'pairs'
  shards.prepare(folder, {'levels': LEVELS})
  shape = (3, FRAMES, 4, 4, 4)
  examples = (
    {'trajectory': np.full(shape, i / 4, np.float16), 'prompt': 'a red circle'}
    for i in range(4)
  )
  trajectories.write_shard(folder, 0, shape, examples)
  return str(folder)


def test_a_regression_run_ships_a_whole_student(start, pairs, tmp_path):
  """Through the train task: trained, resumed, exported with its encoder."""
  config = train.Config(
    workdir=str(tmp_path / 'run'),
    export=str(tmp_path / 'student'),
    export_dtype='float32',
    loop=LOOP,
    ode=ode_config(weights=start, pairs=pairs),
  )
  train.run(config)
  bundle.save_bundle(
    tmp_path / 'whole',
    {
      'dit': '../student',
      'text': '../student',
      'tokenizer': shapes.TOKENIZER,
    },
    (32, 32),
  )
  whole = bundle.open_bundle(str(tmp_path / 'whole'))
  assert whole.configure('dit') == DIT
  assert still(random_params()['text'], whole.read('text'))
  assert not still(random_params()['dit'], whole.read('dit'))
  head, _ = weights.load(tmp_path / 'student')
  assert describe.Spec(**head['schedule']) == SPEC
  longer = dataclasses.replace(LOOP, steps=3)
  train.run(dataclasses.replace(config, loop=longer))


def test_what_does_not_fit_is_said(start, pairs, tmp_path):
  tiny = dataclasses.replace(DIT, ffn_dim=16)
  with pytest.raises(UserError, match=r'start: dit/blocks_0/ffn'):
    student.load(ode_config(weights=start, dit=tiny))
  with pytest.raises(UserError, match=r'--config=configs/shapes/ode_pairs.py'):
    ode.ode_task(ode_config(pairs=str(tmp_path / 'none'))).batches(0, None)
  other = ode_config(pairs=pairs, schedule=describe.Spec('1000,250'))
  with pytest.raises(UserError, match='at time steps 1000, 750, not at 625'):
    ode.ode_task(other).batches(0, None)
  with pytest.raises(UserError, match='those of ODE pairs are exact'):
    _ = ode_config(schedule=describe.Spec('4', table=True)).levels
  with pytest.raises(UserError, match='vocab_size'):
    text = dataclasses.replace(TEXT, vocab_size=7)
    ode.ode_task(ode_config(text=text))
  with pytest.raises(UserError, match='text_drop must be 0'):
    consistency_config(data=diffusion.DataConfig('nowhere'))


def trace(loss, config, batch, frozen):
  """Number of parameters, after tracing their gradient."""
  params = jax.eval_shape(lambda: student.init(config, jax.random.key(0)))

  def gradient(params, frozen, batch):
    return jax.grad(
      lambda params: loss(frozen, params, batch, jax.random.key(0))[0]
    )(params)

  found = jax.eval_shape(gradient, params, frozen, batch)
  same = jax.tree.map(lambda a, b: a.shape == b.shape, found, params)
  assert jax.tree.all(same)
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_full_size_regression_costs_nothing_to_check():
  """Wan2.1 1.3B as its config trains it, traced only."""
  made, _ = config_files.load_config('configs/wan/ode.py')
  config = config_lib.from_dict(ODEConfig, made.ode)
  assert config.levels == (1000.0, 937.5, 2500 / 3, 625.0)
  shape = jax.ShapeDtypeStruct
  batch = {
    'trajectory': shape((1, 5, 21, 60, 104, 16), jnp.float16),
    'ids': shape((1, 512), jnp.int32),
    'mask': shape((1, 512), bool),
  }
  frozen = {'text': specs.abstract('text', config.text)}
  count = trace(functools.partial(ode.loss, config), config, batch, frozen)
  assert count == 1_418_996_800
