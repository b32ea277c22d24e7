"""The transformer against the official implementation, in every form."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case
from golden import assert_close, load, path

from jaxvid.memory import Memory, MemoryConfig
from jaxvid.models.dit import (
  WAN_1_3B,
  WAN_14B,
  DiT,
  text_kv,
  timestep_embedding,
)

FORWARD = ('f1', 'f3', 'f7', 'f3_t0', 'f2_tall', 'b2')
# sink and window of each causal case; the global cache holds all 9 frames.
CAUSAL = {
  's0_global': (0, 9, 'absolute'),
  's0w12': (0, 12, 'absolute'),
  's3w9': (3, 9, 'absolute'),
  's1w5': (1, 5, 'absolute'),
  'inf_s3w9': (3, 9, 'relative'),
}


def _text(contexts):
  rows = max(len(c) for c in contexts)
  return jnp.stack([jnp.pad(c, ((0, rows - len(c)), (0, 0))) for c in contexts])


@pytest.mark.parametrize(
  'case, scan', [*((case, True) for case in FORWARD), ('b2', False)]
)
def test_bidirectional_forward_is_the_official_one(case, scan):
  data = load('dit/wan_t2v.npz')
  t = data[f'{case}.t']
  x = jnp.stack([wan_case.last(data[f'{case}.x{i}']) for i in range(len(t))])
  text = _text([data[f'{case}.context{i}'] for i in range(len(t))])
  dit, variables = wan_case.network(scan)
  velocity, memory = dit.apply(variables, x, jnp.asarray(t, jnp.float32), text)
  assert memory is None
  for i in range(len(t)):
    assert_close(wan_case.first(velocity[i]), data[f'{case}.out{i}'])


def test_timestep_embedding_matches_float64():
  data = load('dit/wan_t2v.npz')
  t = jnp.asarray(data['sinusoid.t'], jnp.float32)
  np.testing.assert_allclose(
    timestep_embedding(t, 256), data['sinusoid.out'], atol=1e-6
  )


def _memory(case, scan, batch=1):
  sink, window, positions = CAUSAL[case]
  sizes = wan_case.config()
  settings = MemoryConfig(
    *wan_case.LATENT, sink, window, chunk=3, positions=positions
  )
  return Memory.create(
    settings,
    batch=batch,
    layers=sizes.num_layers,
    heads=sizes.num_heads,
    head_dim=sizes.head_dim,
    stacked=scan,
  )


@functools.cache
def _forward(scan):
  dit, variables = wan_case.network(scan)
  return jax.jit(functools.partial(dit.apply, variables))


def _frames_in_slots(memory, frames, sink):
  """Latent frame stored in each slot, oldest first, as upstream orders it."""
  capacity = memory.config.capacity
  recent = range(max(frames - capacity + sink, 0), frames)
  kept = sorted({*range(sink), *recent})
  ring = capacity - sink
  return [f if f < sink else sink + (f - sink) % ring for f in kept]


@pytest.mark.parametrize('scan', [True, False], ids=['scan', 'unrolled'])
@pytest.mark.parametrize('case', CAUSAL)
def test_causal_forwards_and_cache_are_the_official_ones(case, scan):
  data = load('dit/causal.npz')
  text = jnp.asarray(data[f'{case}.context'])
  memory = _memory(case, scan)
  count = sum(k.startswith(f'{case}.fwd') and k.endswith('.out') for k in data)
  for i in range(count):
    key = f'{case}.fwd{i:02d}'
    start = int(data[f'{key}.start_frame'])
    memory = memory.replace(frame=jnp.asarray(start, jnp.int32))
    velocity, memory = _forward(scan)(
      wan_case.last(data[f'{key}.x']), data[f'{key}.t'], text, memory
    )
    assert_close(wan_case.first(velocity), data[f'{key}.out'])
  slots = _frames_in_slots(memory, start + 3, CAUSAL[case][0])
  for i in range(wan_case.config().num_layers):
    for name, stored in zip('kv', memory.layer(i), strict=True):
      by_frame = np.asarray(stored).reshape(1, -1, 6, 2, 48)[:, slots]
      reference = data[f'{case}.cache.layer{i}.{name}']
      assert_close(by_frame.reshape(reference.shape), reference)


@pytest.mark.parametrize('scan', [True, False], ids=['scan', 'unrolled'])
def test_text_keys_computed_once_change_nothing(scan):
  data = load('dit/causal.npz')
  dit, variables = wan_case.network(scan)
  text = jnp.asarray(data['s0_global.context'])
  ready = text_kv(wan_case.config(), variables['params'], text)
  for i in range(2):
    reference = data[f's0_global.cross.layer{i}.k']
    assert_close(ready.k[i], reference)
  x = wan_case.last(data['s0_global.fwd00.x'])
  t = jnp.full((1,), 500.0)
  expected, _ = dit.apply(variables, x, t, text)
  actual, _ = dit.apply(variables, x, t, ready)
  np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize('case', ['s1w5', 'inf_s3w9'])
def test_batched_streams_do_not_mix(case):
  data = load('dit/causal.npz')
  text = jnp.asarray(data[f'{case}.context'])
  x = wan_case.last(data[f'{case}.fwd00.x'])
  both = jnp.concatenate([x, x[:, ::-1]])
  pair, single = _memory(case, False, batch=2), _memory(case, False)
  for _ in range(4):
    t = jnp.full((2,), 700.0)
    out, pair = _forward(False)(both, t, jnp.repeat(text, 2, 0), pair)
    alone, single = _forward(False)(x, t[:1], text, single)
    pair, single = pair.advance(3), single.advance(3)
    np.testing.assert_allclose(out[:1], alone, atol=3e-6)


@pytest.mark.parametrize(
  'config, parameters, tensors',
  [(WAN_1_3B, 1_418_996_800, 825), (WAN_14B, 14_288_491_584, 1_095)],
  ids=['1.3B', '14B'],
)
def test_full_size_has_the_published_parameters(config, parameters, tensors):
  dit = DiT(config, scan=False)
  x = jax.ShapeDtypeStruct((1, 3, 60, 104, 16), jnp.float32)
  t = jax.ShapeDtypeStruct((1,), jnp.float32)
  text = jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32)
  shapes = jax.eval_shape(dit.init, jax.random.key(0), x, t, text)
  leaves = jax.tree.leaves(shapes)
  assert sum(leaf.size for leaf in leaves) == parameters
  assert len(leaves) == tensors


def test_reference_config_is_read_from_the_golden():
  model = json.loads(path('dit/config.json').read_text())['model']
  assert wan_case.config().dim == model['dim'] == 96
