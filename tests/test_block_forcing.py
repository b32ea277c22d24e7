"""Block Forcing: both halves, together and apart, with ring and bank."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_distillation import DIT, TEXT, random

from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion.chunk_noise import ProgressiveNoise
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError
from jaxvid.memory.bank_config import BankConfig
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.objectives.velocity_forcing import VelocityForcingConfig
from jaxvid.storage import weights
from jaxvid.stream import stream
from jaxvid.training import block_forcing, loop, rollout, shapes
from jaxvid.training.block_config import (
  AdversaryConfig,
  BlockConfig,
  BlockData,
)
from jaxvid.training.rollout import RolloutConfig

CHUNK, CHUNKS = 2, 4
BANK = BankConfig(retrieved=1, capacity=CHUNKS, recent_probes=2, tau=0.9)
ADVERSARY = AdversaryConfig(
  schedule=Spec('2', commit='clean'),
  rollout=RolloutConfig(CHUNKS, 3),
  layers=(1,),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('weights')
  heads = {'dit': dataclasses.asdict(DIT), 'text': dataclasses.asdict(TEXT)}
  params = {'dit': random('dit', DIT, 0), 'text': random('text', TEXT, 7)}
  weights.save(folder / 'model', params, heads)
  return folder


def make_config(folder, **changes) -> BlockConfig:
  parts = {
    'dit': DIT,
    'text': TEXT,
    'tokenizer': shapes.TOKENIZER,
    'weights': str(folder / 'model'),
    'chunk': CHUNK,
    'data': BlockData('nowhere', 2, CHUNK * CHUNKS),
    'flow': FlowConfig('teacher', CHUNK),
    'size': (4, 4),
    'window': 2 * CHUNK,
    'scan': True,
  }
  return BlockConfig(**(parts | changes))


ROWS = {
  'naive': {'velocity': VelocityForcingConfig(gamma=0.0)},
  'velocity': {'rising': ProgressiveNoise()},
  'literal': {
    'velocity': VelocityForcingConfig('literal'),
    'flow': FlowConfig('diffusion', CHUNK),
  },
  'self_forcing': {'velocity_weight': 0.0, 'adversary': ADVERSARY},
  'both': {'adversary': ADVERSARY, 'bank': BANK},
  'unrolled': {'adversary': ADVERSARY, 'bank': BANK, 'scan': False},
  'diagonal': {
    'adversary': dataclasses.replace(ADVERSARY, schedule=Spec('32')),
    'bank': BANK,
  },
}


def _batch():
  tokens = Tokenizer.load(shapes.TOKENIZER, DIT.text_len)
  texts = ['a red circle', 'a blue square', 'a red circle', 'a green ring']
  ids, mask = tokens(texts[:CHUNKS] + texts[::-1][:CHUNKS])
  latents = jax.random.normal(
    jax.random.key(0), (2, CHUNK * CHUNKS, 4, 4, DIT.out_dim)
  )
  return {
    'ids': ids.reshape(2, CHUNKS, -1),
    'mask': mask.reshape(2, CHUNKS, -1),
    'latents': np.float16(latents),
    'dropped': np.array([False, True]),
  }, tokens([''])


def _parts(config):
  frozen = block_forcing.block_task(config).frozen()
  batch, empty = _batch()
  method = block_forcing.method(config, empty, loop.LoopConfig(steps=4))
  return frozen, batch, method


@pytest.mark.parametrize('row', ROWS)
def test_every_row_is_a_step(folder, row):
  config = make_config(folder, **ROWS[row])
  frozen, batch, method = _parts(config)
  state = jax.eval_shape(
    lambda key: method.create(block_forcing.init(config, key)),
    jax.random.key(0),
  )
  after, metrics = jax.eval_shape(
    method.update, state, frozen, batch, jax.random.key(1)
  )
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert ('velocity' in metrics) == (row != 'self_forcing')
  assert ('judge_loss' in metrics) == ('adversary' in ROWS[row])


def test_both_networks_learn(folder):
  config = make_config(folder, **ROWS['both'])
  frozen, batch, method = _parts(config)
  params = block_forcing.load(config)
  state = method.create(params)
  update = jax.jit(method.update)
  after, metrics = update(state, frozen, batch, jax.random.key(1))
  assert all(np.isfinite(value) for value in metrics.values())

  def moved(name):
    pairs = zip(
      jax.tree.leaves(after.params[name]),
      jax.tree.leaves(params[name]),
      strict=True,
    )
    return any(jnp.abs(a - b).max() > 0 for a, b in pairs)

  assert moved('dit') and moved('judge') and moved('critic')


@pytest.mark.parametrize('bank', [None, BANK], ids=['ring', 'bank'])
def test_a_rollout_with_changing_prompts_is_replayed(folder, bank):
  config = make_config(folder, adversary=ADVERSARY, bank=bank)
  settings, dit = config.stream, block_forcing.load(config)['dit']
  texts = jax.random.normal(jax.random.key(4), (CHUNKS, 2, 5, DIT.text_dim))
  table = rollout.table_of(settings.schedule, CHUNKS)
  depth = rollout.depths(jax.random.key(5), ADVERSARY.rollout)

  @jax.jit
  def run(dit, texts):
    ready = jax.vmap(functools.partial(stream.encode_prompt, settings, dit))(
      texts
    )
    state = stream.init(settings, dit, texts[0], jax.random.key(6))
    state, record = rollout.generate(
      settings, dit, state, table, depth, texts=ready
    )
    last = record.last(3)
    own = jax.tree.map(lambda leaf: leaf[-3:], ready)
    clip = rollout.replay(settings, dit, None, state.memory, last, own)
    return clip, rollout.join(last.clean)

  clip, made = run(dit, texts)
  np.testing.assert_allclose(clip, made, atol=1e-5)
  other = run(dit, texts.at[1].set(texts[0]))[1]
  assert jnp.abs(other - made).max() > 1e-4


def test_prompts_of_chunks_reach_their_chunks_alone(folder):
  """One pass with a prompt per chunk equals chunks with their own prompt."""
  config = make_config(folder)
  dit = block_forcing.load(config)['dit']
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4, DIT.in_dim))
  texts = jax.random.normal(jax.random.key(1), (1, 2, 5, DIT.text_dim))

  @jax.jit
  def run(texts):
    out = config.network.apply({'params': dit}, x, jnp.ones(1), texts)
    return out[0]

  same = jnp.stack([texts[:, 0]] * 2, 1)
  np.testing.assert_allclose(run(same), run(texts[:, 0]), atol=1e-5)
  assert jnp.abs(run(texts) - run(same)).max() > 1e-5


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'flow': FlowConfig('none', CHUNK)}, 'forcing'),
    ({'flow': FlowConfig('teacher', 3)}, 'chunk=2'),
    ({'velocity_weight': 0.0}, 'nothing to learn'),
    (
      {'dit': dataclasses.replace(DIT, linear=True), 'bank': BANK},
      'linear attention',
    ),
    ({'data': BlockData('nowhere', 2, 5)}, 'whole chunks of 2'),
    (
      {
        'adversary': dataclasses.replace(ADVERSARY, rollout=RolloutConfig(3, 3))
      },
      'rollouts of 6 latents',
    ),
    (
      {
        'adversary': ADVERSARY,
        'bank': dataclasses.replace(BANK, capacity=3),
      },
      'capacity is 3',
    ),
  ],
)
def test_impossible_settings_are_refused(folder, changes, message):
  with pytest.raises(UserError, match=message):
    make_config(folder, **changes)
