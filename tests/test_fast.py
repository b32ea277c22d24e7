"""Every way to stream faster against the plain stream."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import specs
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import DiTConfig
from jaxvid.models.fused import fuse
from jaxvid.quantization import tree
from jaxvid.quantization.kernels import Scheme
from jaxvid.stream import deferred, stream
from jaxvid.stream.stream import Settings

CONFIG = DiTConfig(
  dim=24,
  ffn_dim=32,
  num_heads=2,
  num_layers=2,
  freq_dim=16,
  text_dim=8,
  text_len=6,
)
# Largest difference of a clip from float32's, by the coarsest type in use.
# Latents have a standard deviation of about 2 here; documented in
# docs/performance.md.
TOLERANCE = {
  'float32': 1e-5,
  'bfloat16': 6e-2,
  'int8': 6e-2,
  'w8a8': 4e-1,
  'fp8': 4e-1,
}
EXTRA = schedules.explicit([(1000.0, 500.0)], commit='extra(100)', name='two')
CLEAN = schedules.explicit([(1000.0, 500.0)], name='two')
ONE = schedules.explicit([(1000.0,)], name='one')


@functools.cache
def _params(layers: int = 2):
  """Nothing in it is zero, or half of the network would go untested."""
  rng = np.random.default_rng(0)

  def leaf(path, x):
    centre = 1.0 if 'scale' in jax.tree_util.keystr(path) else 0.0
    width = 0.3 if len(x.shape) > 1 else 0.1
    return centre + width * rng.standard_normal(x.shape, np.float32)

  config = dataclasses.replace(CONFIG, num_layers=layers)
  return jax.tree.map_with_path(leaf, specs.abstract('dit', config))


@functools.cache
def _quantized(layers: int, bits: str):
  """Kernels in 8 bits, for inputs of up to four deviations."""
  params = _params(layers)
  if not bits:
    return params
  tops = {
    name: np.full(len(tree.layer(params, name)['kernel']), 4.0, np.float32)
    for group in tree.groups(params)
    for name in group
  }
  return tree.quantize(params, Scheme(mode=bits), tops)


@functools.cache
def _fused(dtype: str, layers: int, bits: str):
  config = dataclasses.replace(CONFIG, num_layers=layers)
  return fuse(config, _quantized(layers, bits), jnp.dtype(dtype))


def _settings(
  schedule=CLEAN,
  sink=3,
  window=6,
  positions='absolute',
  layers=2,
  **options,
):
  memory = MemoryConfig(1, 2, sink, window, 3, positions)
  config = dataclasses.replace(CONFIG, num_layers=layers)
  return Settings(config, memory, schedule, **options)


def _start(settings, seed=0, bits=''):
  layers = settings.config.num_layers
  if settings.fused:
    params = _fused(settings.dtype, layers, bits)
  else:
    params = _quantized(layers, bits)
  text = jax.random.normal(jax.random.key(100 + seed), (1, 5, 8))
  negative = None if settings.guidance == 1 else text[:, ::-1]
  state = stream.init(settings, params, text, jax.random.key(seed), negative)
  return params, state


def _play(settings, params, state, chunks, first=0):
  clip, step = [], stream.jitted_step(settings)
  for i in range(first, first + chunks):
    ticks = stream.chunk_ticks(settings.schedule, i)
    state, x0 = step(params, state, ticks)
    clip.append(x0)
  return state, np.concatenate(clip, 1)


def _clip(settings, chunks=3, bits=''):
  return _play(settings, *_start(settings, bits=bits), chunks)[1]


@functools.cache
def _plain():
  return _clip(_settings(ONE, layers=1))


OPTIONS = {
  'fused': (False, True),
  'deferred': (False, True),
  'dtype': ('float32', 'bfloat16'),
  'residual': ('float32', 'bfloat16'),
}
BACKENDS = ('xla', 'reference')  # Others need a GPU, or its interpreter.


BITS = ('', 'int8', 'w8a8', 'fp8')


def _combinations():
  """All options, backends and kernels in 8 bits; any two choices meet."""
  for i, values in enumerate(itertools.product(*OPTIONS.values())):
    yield *values, BACKENDS[(i & 7).bit_count() % 2], BITS[(i ^ (i >> 2)) % 4]


def test_any_two_choices_are_tried_together():
  tried = [{*enumerate(values)} for values in _combinations()]
  options = [*OPTIONS.values(), BACKENDS, BITS]
  singles = [(i, value) for i, row in enumerate(options) for value in row]
  for a, b in itertools.combinations(singles, 2):
    assert a[0] == b[0] or any({a, b} <= row for row in tried), (a, b)


@pytest.mark.parametrize(
  'values',
  list(_combinations()),
  ids=lambda values: '-'.join(str(value) for value in values),
)
def test_every_combination_stays_within_its_tolerance(values):
  *values, backend, bits = values
  options = dict(zip(OPTIONS, values, strict=True))
  settings = _settings(ONE, layers=1, backend=backend, **options)
  clip = _clip(settings, bits=bits)
  used = {'float32', options['dtype'], options['residual']} | {bits} - {''}
  tolerance = max(TOLERANCE[name] for name in used)
  np.testing.assert_allclose(clip, _plain(), atol=tolerance)
  if used != {'float32'}:
    assert not np.array_equal(clip, _plain())


@pytest.mark.parametrize(
  'schedule, sink, window, positions, guidance, fused',
  [
    (CLEAN, 3, 6, 'relative', 1.0, True),
    (EXTRA, 1, 5, 'absolute', 1.0, False),
    (EXTRA, 0, 6, 'relative', 3.0, True),
    (ONE, 3, 3, 'absolute', 1.0, False),
  ],
)
def test_deferred_passes_are_the_separate_ones(
  schedule, sink, window, positions, guidance, fused
):
  settings = _settings(schedule, sink, window, positions, guidance=guidance)
  later = dataclasses.replace(settings, deferred=True, fused=fused)
  state, clip = _play(settings, *_start(settings), 5)
  params, start = _start(later)
  other, same = _play(later, params, start, 5)
  np.testing.assert_allclose(same, clip, atol=1e-5)
  assert other.memory.frame == state.memory.frame == 15
  # At the end, or before a change of the prompt: nothing is missing.
  other = deferred.settle(later, params, other)
  assert other.pending is None
  for a, b in zip(state.memory.v, other.memory.v, strict=True):
    np.testing.assert_allclose(b, a, atol=1e-5)


def test_a_saved_stream_goes_on_with_its_pending_tick():
  settings = _settings(ONE, deferred=True, layers=1)
  params, state = _start(settings)
  _, whole = _play(settings, params, state, 4)
  params, state = _start(settings)
  state, _ = _play(settings, params, state, 2)
  leaves, tree = jax.tree.flatten(
    state.replace(key=jax.random.key_data(state.key))
  )
  saved = [np.asarray(leaf) for leaf in leaves]
  state = jax.tree.unflatten(tree, map(jnp.asarray, saved))
  state = state.replace(key=jax.random.wrap_key_data(state.key))
  _, rest = _play(settings, params, state, 2, first=2)
  np.testing.assert_array_equal(rest, whole[:, 6:])


def test_a_new_prompt_meets_a_settled_memory():
  clips = []
  for later in (False, True):
    settings = _settings(ONE, layers=1, deferred=later)
    params, state = _start(settings)
    state, _ = _play(settings, params, state, 2)
    state = deferred.settle(settings, params, state)
    text = stream.encode_prompt(settings, params, jnp.ones((1, 6, 8)))
    clips.append(_play(settings, params, state.replace(text=text), 2, 2)[1])
  np.testing.assert_allclose(clips[1], clips[0], atol=1e-5)


def test_compiled_once_per_tick_count_and_once_more_for_the_first_chunk():
  for later, programs in ((False, 1), (True, 2)):
    settings = _settings(ONE, layers=1, deferred=later, fused=True)
    params, state = _start(settings)
    step = stream.jitted_step(settings)
    ticks = stream.chunk_ticks(settings.schedule, 0)
    for _ in range(4):
      state, _ = step(params, state, ticks)
    assert step._cache_size() == programs


def test_rollouts_defer_too():
  settings = _settings(EXTRA, deferred=True, fused=True)
  params, state = _start(settings)
  roll = jax.jit(functools.partial(stream.rollout, settings, num_chunks=4))
  _, clip = roll(params, state)
  expected = _clip(_settings(EXTRA), 4)
  np.testing.assert_allclose(clip, expected, atol=1e-5)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'schedule': schedules.digits('2')}, 'no extra tick'),
    ({'scan': True}, 'unrolled'),
    ({'scan': True, 'fused': True, 'deferred': False}, 'choose'),
  ],
)
def test_impossible_speed_is_refused(options, message):
  with pytest.raises(UserError, match=message):
    _settings(**{'deferred': True, **options})
