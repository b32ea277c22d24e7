"""Streams: equal to the published pipelines, and to themselves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case
from golden import assert_close, load

from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.stream import stream, switch

PUBLISHED = {
  'diag_noisy': schedules.legacy(table=True),
  'switch_keep_sink': schedules.self_forcing(table=True),
  'switch_reset_sink': schedules.self_forcing(table=True),
}


def _settings(schedule, sink=3, window=9, chunk=3, **options):
  memory = MemoryConfig(
    *wan_case.LATENT,
    sink,
    window,
    chunk,
    options.pop('positions', 'absolute'),
    options.pop('aligned', True),
  )
  return stream.Settings(wan_case.config(), memory, schedule, **options)


def _params(settings):
  scan = settings.scan
  return wan_case.stacked_params() if scan else wan_case.unrolled_params()


@functools.cache
def _denoise(settings):
  return jax.jit(functools.partial(stream.denoise, settings))


def _frames(x):
  """Stored [B, F, C, H, W] -> [B, F, H, W, C]."""
  return jnp.moveaxis(jnp.asarray(x), 2, -1)


@pytest.mark.parametrize(
  'case, scan', [*((case, False) for case in PUBLISHED), ('diag_noisy', True)]
)
def test_rollouts_are_the_published_ones(case, scan):
  data = load('dit/rollout.npz')
  settings = _settings(PUBLISHED[case], scan=scan)
  params = _params(settings)
  noise, renoise = (
    _frames(data[f'{case}.noise']),
    list(_frames(data[f'{case}.renoise'])),
  )
  prompt = jnp.asarray(data[f'{case}.prompt0'])
  state = stream.init(settings, params, prompt, jax.random.key(0))
  latents = []
  for chunk in range(noise.shape[1] // 3):
    if case.startswith('switch') and chunk == 5:
      state = _switch(settings, params, state, data, case, latents)
    ticks = stream.chunk_ticks(settings.schedule, chunk)
    draws = [renoise.pop(0)[None] for _ in range(len(ticks.t) - 1)]
    draws.append(jnp.zeros_like(noise[:, :3]))
    start = noise[:, 3 * chunk : 3 * chunk + 3]
    state, x0 = _denoise(settings)(
      params, state, ticks, start, jnp.stack(draws)
    )
    latents.append(x0)
  assert not renoise
  actual = jnp.moveaxis(jnp.concatenate(latents, 1), -1, 2)
  assert_close(actual, data[f'{case}.latents'])


def _switch(settings, params, state, data, case, latents):
  text = stream.encode_prompt(settings, params, data[f'{case}.prompt1'])
  newest = jnp.concatenate(latents, 1)[:, -12:]
  keep = case == 'switch_keep_sink'
  return switch.jitted_upstream_recache(settings, keep)(
    params, state, text, newest
  )


def _text(seed=0, rows=9):
  return jax.random.normal(jax.random.key(100 + seed), (1, rows, 32))


def _chunks(settings, count, key=0, negative=None, text=None):
  params = _params(settings)
  text = _text() if text is None else text
  state = stream.init(settings, params, text, jax.random.key(key), negative)
  for i in range(count):
    ticks = stream.chunk_ticks(settings.schedule, i)
    state, x0 = stream.jitted_step(settings)(params, state, ticks)
    yield x0


DIGITS = schedules.digits('432')
EXTRA = schedules.digits('2', commit='extra(100)')
EULER = schedules.euler(3)


@pytest.mark.parametrize(
  'schedule', [DIGITS, EXTRA, EULER], ids=['digits', 'extra', 'euler']
)
def test_scan_over_chunks_is_stepping(schedule):
  settings = _settings(schedule, sink=1, window=5, positions='relative')
  stepped = jnp.concatenate(list(_chunks(settings, 5)), 1)
  params = _params(settings)
  state = stream.init(settings, params, _text(), jax.random.key(0))
  roll = jax.jit(functools.partial(stream.rollout, settings, num_chunks=5))
  state, clip = roll(params, state)
  np.testing.assert_allclose(clip, stepped, atol=1e-5)
  assert state.memory.frame == 15


@pytest.mark.parametrize('guidance', [1.0, 3.0])
def test_training_layout_streams_the_same_video(guidance):
  settings = _settings(EXTRA, sink=3, window=6, guidance=guidance)
  negative = None if guidance == 1 else _text(1, 4)
  a = list(_chunks(settings, 4, negative=negative))
  other = dataclasses.replace(settings, scan=True)
  b = list(_chunks(other, 4, negative=negative))
  np.testing.assert_allclose(jnp.stack(a), jnp.stack(b), atol=1e-5)


def test_a_seed_reproduces_bit_for_bit_and_another_does_not():
  settings = _settings(DIGITS)
  a, b, c = (list(_chunks(settings, 2, key)) for key in (0, 0, 1))
  np.testing.assert_array_equal(a[1], b[1])
  assert jnp.abs(a[1] - c[1]).max() > 0.1


def test_a_key_starts_as_many_streams_as_one_likes():
  settings = _settings(schedules.digits('2'), sink=1, window=4, chunk=2)
  params, key = _params(settings), jax.random.key(7)
  ticks = stream.chunk_ticks(settings.schedule, 0)
  step = stream.jitted_step(settings)
  states = [stream.init(settings, params, _text(), key) for _ in range(2)]
  first, second = (step(params, state, ticks)[1] for state in states)
  np.testing.assert_array_equal(first, second)


def test_one_compilation_however_long_the_stream():
  settings = _settings(schedules.digits('2'), sink=1, window=4, chunk=2)
  list(_chunks(settings, 9))
  assert stream.jitted_step(settings)._cache_size() == 1


def test_streams_of_a_batch_are_independent():
  settings = _settings(EULER, sink=1, window=5)
  params = _params(settings)
  texts = [_text(0), _text(1)]
  both = stream.init(
    settings, params, jnp.concatenate(texts), jax.random.key(0)
  )
  shape = stream.latent_shape(settings, both)
  noise = jax.random.normal(jax.random.key(5), (4, *shape))
  singles = [
    stream.init(settings, params, text, jax.random.key(0)) for text in texts
  ]
  ticks = stream.chunk_ticks(settings.schedule, 0)
  for i in range(4):
    both, x0 = _denoise(settings)(params, both, ticks, noise[i], None)
    for b in range(2):
      singles[b], alone = _denoise(settings)(
        params, singles[b], ticks, noise[i, b : b + 1], None
      )
      np.testing.assert_allclose(x0[b : b + 1], alone, atol=1e-5)


def test_given_latents_become_the_history():
  """Prefilling what a stream made itself continues that very stream."""
  settings = _settings(EULER, sink=1, window=5)
  params = _params(settings)
  made = list(_chunks(settings, 3))
  state = stream.init(settings, params, _text(), jax.random.key(0))
  state = stream.prefill(settings, params, state, jnp.concatenate(made[:2], 1))
  assert state.memory.frame == 6
  state = state.replace(chunk=jnp.asarray(2, jnp.int32))
  ticks = stream.chunk_ticks(settings.schedule, 2)
  _, x0 = stream.jitted_step(settings)(params, state, ticks)
  np.testing.assert_allclose(x0, made[2], atol=1e-5)


def test_a_stream_may_start_from_one_frame():
  settings = _settings(EULER, sink=3, window=9, aligned=False)
  params = _params(settings)
  state = stream.init(settings, params, _text(), jax.random.key(0))
  first = jax.random.normal(jax.random.key(8), (1, 1, 4, 6, 16))
  state = stream.prefill(settings, params, state, first)
  for i in range(5):
    ticks = stream.chunk_ticks(settings.schedule, i)
    state, x0 = stream.jitted_step(settings)(params, state, ticks)
    assert np.isfinite(x0).all()
  assert state.memory.frame == 16


def test_guidance_without_a_negative_prompt_is_refused():
  settings = _settings(EULER, guidance=4.0)
  with pytest.raises(UserError, match='negative prompt'):
    next(_chunks(settings, 1))
