"""Prompt switches: a re-cache is the stream's own way of writing memory."""

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
from jaxvid.memory import MemoryConfig, held_frames
from jaxvid.models import conditioning
from jaxvid.stream import stream, switch
from jaxvid.stream.switch import SwitchConfig

FORCED = schedules.explicit([[1000.0, 500.0]], name='forced')
EXTRA = schedules.digits('2', commit='extra(100)')


def _settings(sink=2, window=4, chunk=2, schedule=FORCED, **options):
  names = ('positions', 'aligned', 'spare')
  parts = {n: options.pop(n) for n in names if n in options}
  memory = MemoryConfig(*wan_case.LATENT, sink, window, chunk, **parts)
  return stream.Settings(wan_case.config(), memory, schedule, **options)


def _params(settings):
  scan = settings.scan
  return wan_case.stacked_params() if scan else wan_case.unrolled_params()


def _text(seed):
  return jax.random.normal(jax.random.key(100 + seed), (1, 5, 32))


def _negative(settings):
  return _text(9) if settings.guided else None


def _ready(settings, seed):
  params = _params(settings)
  return stream.encode_prompt(
    settings, params, _text(seed), _negative(settings)
  )


def _start(settings, seed=0):
  return stream.init(
    settings, _params(settings), _text(seed), jax.random.key(0),
    _negative(settings),
  )  # fmt: skip


@functools.cache
def _step(settings):
  return jax.jit(functools.partial(stream.step, settings))


def _stream(settings, chunks, state=None, past=None):
  """Advances by some chunks; returns the stream, its past and latents."""
  state = _start(settings) if state is None else state
  past = switch.new_past(settings, state) if past is None else past
  made = []
  for _ in range(chunks):
    ticks = stream.chunk_ticks(settings.schedule, int(state.chunk))
    state, x0 = _step(settings)(_params(settings), state, ticks)
    past = switch.remember(settings, past, state, x0)
    made.append(x0)
  return state, past, made


def _next(settings, state):
  return _stream(settings, 1, state)[2][0]


def _recached(settings, state, past, seed=1):
  return jax.jit(functools.partial(switch.recache, settings))(
    _params(settings), state, past, _ready(settings, seed)
  )


CASES = {
  'filling': (_settings(), 2),
  'full': (_settings(positions='relative'), 5),
  'no sink': (_settings(0, 6, positions='relative'), 5),
  'wide sink': (_settings(4, 2, positions='relative'), 4),
  'wide sink, filling': (_settings(4, 2), 1),
  'window of a chunk and a half': (_settings(2, 3, positions='relative'), 4),
  'guided': (_settings(positions='relative', guidance=2.0), 4),
}


@pytest.mark.parametrize('case', CASES)
def test_one_pass_is_writing_chunk_by_chunk(case):
  settings, chunks = CASES[case]
  state, past, _ = _stream(settings, chunks)
  frame = int(state.memory.frame)
  frames = held_frames(settings.memory, state.memory.frame)
  latents = switch.held(settings, past, state)[:, np.asarray(frames) < frame]
  again = _recached(settings, state, past)
  assert again.memory.frame == frame
  oracle = _start(settings, 1)
  commit = stream.jitted_commit(settings)
  first = latents.shape[1] % 2  # A frame of a chunk that was forgotten.
  memory, sink = settings.memory, settings.memory.sink
  if first:  # It is the first of the window.
    loose = dataclasses.replace(
      settings, memory=dataclasses.replace(memory, aligned=False)
    )
    commit = stream.jitted_commit(loose)
    oracle = oracle.replace(memory=oracle.memory.replace(config=loose.memory))
  sizes = [2] * (min(sink, latents.shape[1]) // 2) + [1] * first
  sizes += [2] * ((latents.shape[1] - sum(sizes)) // 2)
  at = 0
  for i, size in enumerate(sizes):
    oracle = commit(
      _params(settings), oracle, latents[:, at : at + size], np.int32(i)
    )
    at += size
  oracle = oracle.replace(chunk=again.chunk, text=again.text)
  if first:
    # The window of the next chunk begins in the middle of one that is held.
    a, b = again.memory, oracle.memory
    np.testing.assert_allclose(
      _by_rank(settings, a, frame), _by_rank(settings, b, at), atol=1e-5
    )
    return
  np.testing.assert_allclose(
    _next(settings, again), _next(settings, oracle), atol=1e-5
  )


def _by_rank(settings, memory, end):
  """Stored keys of the first layer in temporal order."""
  config = settings.memory
  frames = np.asarray(held_frames(config, jnp.int32(end)))
  ring = config.capacity - config.sink
  slots = np.where(
    frames < config.sink, frames, config.sink + (frames - config.sink) % ring
  )
  keys = np.asarray(memory.k[1])
  return keys.reshape(1, config.capacity, config.tokens, *keys.shape[2:])[
    :, slots
  ]


@pytest.mark.parametrize('chunks', [1, 3])
def test_the_same_prompt_changes_nothing_while_all_is_remembered(chunks):
  settings = _settings()
  state, past, _ = _stream(settings, chunks)
  again = _recached(settings, state, past, seed=0)
  filled = chunks * 2 * settings.memory.tokens
  for a, b in zip(again.memory.k, state.memory.k, strict=True):
    np.testing.assert_allclose(a[:, :filled], b[:, :filled], atol=1e-5)
  np.testing.assert_allclose(
    _next(settings, again), _next(settings, state), atol=1e-5
  )


@pytest.mark.parametrize('positions', ['absolute', 'relative'])
def test_the_training_layout_is_the_same(positions):
  options = {'positions': positions, 'schedule': EXTRA}
  plain = _settings(**options)
  training = _settings(**options, scan=True, spare=4)
  results = []
  for settings in (plain, training):
    state, past, _ = _stream(settings, 5)
    results.append(_next(settings, _recached(settings, state, past)))
  np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_noise_follows_the_schedule():
  """At the level of extra(t), with noise that no chunk draws."""
  settings = _settings(schedule=EXTRA)
  state, *_ = _stream(settings, 3)
  t, sigma = switch._levels(settings, state)
  level = EXTRA.context(0)
  np.testing.assert_allclose(t, level.t, rtol=1e-6)
  np.testing.assert_allclose(sigma, level.sigma, rtol=1e-6)
  mixed = dataclasses.replace(
    settings, schedule=schedules.explicit(
      [[1000.0], [1000.0, 300.0], [1000.0, 100.0]], commit='last'
    ),
  )  # fmt: skip
  state = state.replace(chunk=jnp.int32(4))
  state = state.replace(memory=state.memory.replace(frame=jnp.int32(8)))
  t, _ = switch._levels(mixed, state)
  rows = [mixed.schedule.context(i).t for i in (0, 2, 3)]
  np.testing.assert_allclose(t, np.repeat(rows, 2), rtol=1e-6)


def test_one_program_however_full_the_memory_is():
  settings = _settings(window=6)
  for chunks in (1, 4):
    state, past, _ = _stream(settings, chunks)
    text = _ready(settings, 1)
    switch.jitted_recache(settings)(_params(settings), state, past, text)
  assert switch.jitted_recache(settings)._cache_size() == 1


def test_other_strategies():
  settings = _settings()
  params, text = _params(settings), _ready(settings, 1)
  state, past, _ = _stream(settings, 2)
  expected = state.memory
  kept, same = switch.switch(
    settings, params, state, past, text, SwitchConfig('keep')
  )
  assert same is past and kept.memory is expected
  none, nothing = switch.switch(
    settings, params, state, past, text, SwitchConfig('none')
  )
  fresh = _start(settings, 1).replace(chunk=state.chunk)
  np.testing.assert_array_equal(_next(settings, none), _next(settings, fresh))
  assert not np.any(nothing.recent)


def test_a_switch_before_the_first_chunk_is_another_prompt():
  settings = _settings()
  state = _start(settings)
  past = switch.new_past(settings, state)
  state, _ = switch.switch(
    settings, _params(settings), state, past, _ready(settings, 1),
    SwitchConfig(),
  )  # fmt: skip
  np.testing.assert_array_equal(
    _next(settings, state), _next(settings, _start(settings, 1))
  )


@pytest.mark.parametrize(
  'sink, scan', [('keep', False), ('rewrite', False), ('keep', True)]
)
def test_published_interactive_streams(sink, scan):
  """Through `Past` and `switch`, with the release's window."""
  case = {'keep': 'switch_keep_sink', 'rewrite': 'switch_reset_sink'}[sink]
  data = load('dit/rollout.npz')
  schedule = schedules.self_forcing(table=True)
  settings = _settings(3, 9, 3, schedule, scan=scan)
  params = _params(settings)
  noise, renoise = (
    jnp.moveaxis(jnp.asarray(data[f'{case}.{name}']), 2, -1)
    for name in ('noise', 'renoise')
  )
  prompts = [jnp.asarray(data[f'{case}.prompt{i}']) for i in range(2)]
  state = stream.init(settings, params, prompts[0], jax.random.key(0))
  past, made = switch.new_past(settings, state), []
  denoise = jax.jit(functools.partial(stream.denoise, settings))
  for i in range(7):
    if i == 5:
      text = stream.encode_prompt(settings, params, prompts[1])
      state, past = switch.switch(
        settings, params, state, past, text, SwitchConfig('upstream', sink)
      )
    ticks = stream.chunk_ticks(schedule, i)
    draws = jnp.pad(renoise[3 * i : 3 * i + 3], ((0, 1), *[(0, 0)] * 4))
    state, x0 = denoise(
      params, state, ticks, noise[:, 3 * i : 3 * i + 3], draws[:, None]
    )
    past = switch.remember(settings, past, state, x0)
    made.append(x0)
  actual = jnp.moveaxis(jnp.concatenate(made, 1), -1, 2)
  assert_close(actual, data[f'{case}.latents'])


def test_models_with_further_inputs_are_told_what_is_possible():
  inputs = conditioning.InputConfig(recycled='last')
  settings = dataclasses.replace(_settings(), inputs=inputs)
  state = _start(_settings())
  state = state.replace(memory=state.memory.at(2))
  past = switch.new_past(_settings(), state)
  with pytest.raises(UserError, match='knows no further inputs'):
    switch.switch(settings, {}, state, past, state.text, SwitchConfig())


@pytest.mark.parametrize(
  'options, message',
  [(('flush',), "'flush'"), (('upstream', 'drop'), "'drop'")],
)
def test_unknown_strategies_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    SwitchConfig(*options)
