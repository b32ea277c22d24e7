"""Streams with a bank of past chunks: whole models, any schedule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_distillation import DIT, random

from jaxvid.diffusion import schedule as schedules
from jaxvid.diffusion.chunk_noise import StartNoise
from jaxvid.memory import MemoryConfig
from jaxvid.memory.bank_config import BankConfig
from jaxvid.models.layers import stack_layers
from jaxvid.stream import stream

ALL = BankConfig(tau=1.0, retrieved=8, capacity=8)
SPARSE = BankConfig(tau=0.8, retrieved=1, capacity=5, recent_probes=3)
SCHEDULES = {
  'diagonal': schedules.digits('32'),
  'euler': schedules.euler(2),
}


def _settings(schedule, bank, guidance=1.0, scan=False, window=4, **options):
  memory = MemoryConfig(
    2,
    2,
    0,
    window,
    2,
    options.pop('positions', 'absolute'),
    options.pop('aligned', True),
    bank=bank,
  )
  return stream.Settings(DIT, memory, schedule, guidance, scan, **options)


def _text(seed, rows=5):
  return jax.random.normal(jax.random.key(seed), (1, rows, DIT.text_dim))


def _run(settings, scenes, first=None):
  """Latents of a video whose prompts change, `[B, F, H, W, C]`."""
  params = random('dit', DIT, 3)
  params = stack_layers(params) if settings.scan else params
  negative = _text(99) if settings.guided else None
  state = stream.init(
    settings, params, _text(scenes[0]), jax.random.key(0), negative
  )
  if first is not None:
    state = stream.prefill(settings, params, state, first)
  made = []
  for i, scene in enumerate(scenes):
    # A step consumes the prompt with the rest of the state.
    text = stream.encode_prompt(settings, params, _text(scene), negative)
    state = state.replace(text=text)
    ticks = stream.chunk_ticks(settings.schedule, i)
    state, x0 = stream.jitted_step(settings)(params, state, ticks)
    made.append(x0)
  return jnp.concatenate(made, 1), state


@pytest.mark.parametrize('name', SCHEDULES)
def test_all_of_the_past_is_the_memory_that_forgets_nothing(name):
  scenes = [0, 0, 1, 0]
  settings = _settings(SCHEDULES[name], ALL)
  dense = _settings(SCHEDULES[name], None, window=8)
  a, b = (_run(s, scenes)[0] for s in (settings, dense))
  np.testing.assert_allclose(a, b, atol=1e-5)


def test_training_layout_streams_the_same_video():
  settings = _settings(
    schedules.digits('2'), SPARSE, guidance=3.0, positions='relative'
  )
  scenes = [0, 1, 2, 0, 0]
  other = dataclasses.replace(settings, scan=True)
  a, b = (_run(s, scenes)[0] for s in (settings, other))
  np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_compilation_and_one_size_however_long_the_stream():
  settings = _settings(schedules.digits('1'), SPARSE)
  step = stream.jitted_step(settings)
  _, early = _run(settings, [0, 1])
  _, late = _run(settings, [0, 1, 2] * 3)
  assert step._cache_size() == 1
  assert jax.tree.map(jnp.shape, early) == jax.tree.map(jnp.shape, late)


def test_a_stream_with_a_bank_may_start_from_one_frame():
  settings = _settings(schedules.euler(1), SPARSE, aligned=False)
  frame = jax.random.normal(jax.random.key(8), (1, 1, 4, 4, DIT.out_dim))
  clip, state = _run(settings, [0, 1, 0], first=frame)
  assert state.memory.frame == 7 and state.memory.count == 4
  other, _ = _run(settings, [0, 1, 0], first=-frame)
  assert np.isfinite(clip).all() and jnp.abs(clip - other).max() > 1e-4


def test_shared_noise_makes_chunks_alike_and_shuffles_tell_them_apart():
  shared = _settings(schedules.digits('1'), None, noise=StartNoise(0, True))
  state = _run(shared, [0])[1]
  shape = stream.latent_shape(shared, state)
  draws = {
    s: [
      stream.start_noise(
        dataclasses.replace(shared, noise=StartNoise(s, True)),
        state.replace(chunk=jnp.int32(i)),
        shape,
      )
      for i in range(1, 9)
    ]
    for s in (0, 2)
  }
  assert all(jnp.array_equal(x, draws[0][0]) for x in draws[0])
  assert not all(jnp.array_equal(x, draws[0][0]) for x in draws[2])
