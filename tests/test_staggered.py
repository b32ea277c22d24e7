"""Several chunks in flight, restarted chunks, re-cache of a bank."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_distillation import DIT, random

from jaxvid.diffusion import describe
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.memory.bank_config import BankConfig
from jaxvid.memory.plan import parallel
from jaxvid.models.dit import DiT
from jaxvid.stream import restart, stream, switch

BANK = BankConfig(tau=0.9, retrieved=1, capacity=5, recent_probes=3)
CHUNK, CHUNKS, STAGE, FLIGHT = 2, 4, 2, 2


def _settings(schedule, bank=None, window=16, positions='absolute', **options):
  memory = MemoryConfig(2, 2, 0, window, CHUNK, positions, bank=bank)
  return stream.Settings(DIT, memory, schedule, **options)


def _text(seed):
  return jax.random.normal(jax.random.key(seed), (1, 5, DIT.text_dim))


PARAMS = random('dit', DIT, 3)


@functools.cache
def _field(history, mutual):
  """Velocity of the chunks in flight in one pass without a memory."""
  frames = (history + FLIGHT) * CHUNK
  chunk = np.arange(frames) // CHUNK
  ends = (chunk + 1) * CHUNK
  if mutual:
    ends = np.where(chunk >= history, frames, ends)
  ends = np.repeat(ends * 4, 4)
  ranges = np.stack([np.zeros_like(ends), ends], -1)[None].astype(np.int32)
  plan = parallel(np.arange(frames), 2, 2, DIT.head_dim, jnp.asarray(ranges))

  @jax.jit
  def run(x, t, text):
    network = DiT(DIT, scan=False)
    return network.apply({'params': PARAMS}, x, t[None], text, None, plan)[0]

  return run


def _oracle(settings, key):
  """The video of a staggered schedule, all of it in plain loops."""
  schedule = settings.schedule
  levels = [*(level.sigma for level in schedule.rows[0]), 0.0]
  state = stream.init(settings, PARAMS, _text(0), key)
  shape = stream.latent_shape(settings, state)
  x = [
    stream.start_noise(settings, state.replace(chunk=jnp.int32(i)), shape)
    for i in range(CHUNKS + FLIGHT)
  ]
  done = [0] * len(x)
  for oldest in range(CHUNKS):
    rounds = FLIGHT if oldest == 0 else 1
    for turn in range(rounds):
      begun = oldest + (turn + 1 if oldest == 0 else FLIGHT)
      for _ in range(STAGE):
        window = range(oldest, oldest + FLIGHT)
        clip = jnp.concatenate([x[i] for i in range(oldest + FLIGHT)], 1)
        t = [0.0] * oldest + [1000 * levels[done[i]] for i in window]
        t = jnp.repeat(jnp.asarray(t), CHUNK)
        v = _field(oldest, schedule.mutual)(clip, t, _text(0))
        for i in window:
          if i < begun:
            part = v[:, i * CHUNK : (i + 1) * CHUNK]
            x[i] = x[i] + part * (levels[done[i] + 1] - levels[done[i]])
            done[i] += 1
    assert done[oldest] == len(levels) - 1
  return jnp.concatenate(x[:CHUNKS], 1)


@pytest.mark.parametrize('mutual', [False, True], ids=['magi', 'pavdm'])
def test_chunks_in_flight_see_what_they_should(mutual):
  schedule = schedules.staggered(STAGE * FLIGHT, FLIGHT, mutual)
  settings, key = _settings(schedule), jax.random.key(1)
  state, made = stream.init(settings, PARAMS, _text(0), key), []
  for i in range(CHUNKS):
    ticks = stream.chunk_ticks(schedule, i)
    state, x0 = stream.jitted_step(settings)(PARAMS, state, ticks)
    made.append(x0)
  np.testing.assert_allclose(
    jnp.concatenate(made, 1), _oracle(settings, key), atol=1e-4
  )
  # One program for the first chunk, one for all others.
  assert stream.jitted_step(settings)._cache_size() == 2


@pytest.mark.parametrize(
  'options',
  [
    {'bank': BANK, 'window': 4},
    {'bank': BANK, 'window': 4, 'positions': 'relative', 'guidance': 2.0},
    {'positions': 'relative', 'window': 4, 'scan': True},
  ],
)
def test_staggered_schedules_go_with_every_memory(options):
  settings = _settings(schedules.staggered(4, 2, False), **options)
  params = PARAMS
  if settings.scan:
    from jaxvid.models.layers import stack_layers

    params = stack_layers(params)
  negative = _text(9) if settings.guided else None

  def run(params, key):
    state = stream.init(settings, params, _text(0), key, negative)
    return stream.rollout(settings, params, state, 3)

  state, clip = jax.eval_shape(run, params, jax.random.key(0))
  assert clip.shape == (1, 6, 4, 4, DIT.out_dim)
  assert state.flight.shape == (1, 4, 4, 4, DIT.out_dim)


def test_staggered_schedules_as_people_write_them():
  magi = describe.build(describe.Spec('magi'))
  assert (len(magi.row(0)), magi.flight, magi.mutual) == (64, 4, False)
  pavdm = describe.build(describe.Spec('pavdm', steps=6, flight=3))
  assert (len(pavdm.row(9)), pavdm.flight, pavdm.mutual) == (6, 3, True)
  assert pavdm.calls(0) == 3  # Two ticks and the clean one.
  text = describe.explain(pavdm, 5)
  assert '3 chunks in flight' in text
  assert '14 ticks + 5 extra = 19 denoiser calls' in text


@pytest.mark.parametrize(
  'spec, message',
  [
    (describe.Spec('magi', steps=10), '4 chunks in flight share 10 ticks'),
    (describe.Spec('magi', commit='last'), 'write nothing'),
  ],
)
def test_impossible_staggered_schedules_are_refused(spec, message):
  with pytest.raises(UserError, match=message):
    describe.build(spec)


class Codec:
  """A decoder of one number per latent frame, and its encoder."""

  padding = 3

  def init_state(self, latents):
    return latents[:, 0, 0, 0, 0]

  def __call__(self, latents, state, first):
    assert first
    level = np.clip(np.asarray(latents[..., 0, 0, 0]) * 20 + 128, 0, 255)
    frames = np.repeat(level.astype(np.uint8), 4, 1)
    frames = frames[..., None, None, None] * np.ones((1, 1, 8, 8, 3), np.uint8)
    return frames, state

  def encode(self, frame):
    level = (frame[:, :1, :1, :1].astype(np.float32) - 128) / 20
    shape = (len(frame), 1, 4, 4, DIT.out_dim)
    return jnp.broadcast_to(level[..., None], shape)


@pytest.mark.parametrize('first', [False, True])
def test_restarted_chunks_begin_where_the_last_one_ended(first):
  settings = _settings(schedules.euler(2), window=6)
  settings = dataclasses.replace(
    settings, memory=dataclasses.replace(settings.memory, chunk=3)
  )
  state = stream.init(settings, PARAMS, _text(0), jax.random.key(2))
  codec, given = Codec(), None
  if first:
    given = codec.encode(np.full((1, 8, 8, 3), 150, np.uint8))
  seen = []

  def encode(frame):
    seen.append(codec.encode(frame))
    return seen[-1]

  pieces = list(
    restart.frames(settings, PARAMS, state, codec, encode, 3, given)
  )
  assert [x.shape[1] for x in pieces] == [8 if first else 9, 8, 8]
  assert len(seen) == 3


def test_given_latents_stay_as_they_are():
  settings = _settings(schedules.digits('3'), BANK, window=4)
  given = jax.random.normal(jax.random.key(3), (1, 1, 4, 4, DIT.out_dim))
  ticks = stream.chunk_ticks(settings.schedule, 0)
  made = []
  for sign in (1, -1):
    state = stream.init(settings, PARAMS, _text(0), jax.random.key(2))
    run = restart.jitted_step(settings)
    state, x0 = run(PARAMS, state, ticks, sign * given)
    np.testing.assert_array_equal(x0[:, :1], sign * given)
    made.append(x0)
  assert state.memory.frame == CHUNK
  assert jnp.abs(made[0][:, 1:] - made[1][:, 1:]).max() > 1e-4


def _switched(settings, cache, prompt):
  """The chunk after a switch to `prompt`, and the memory before it."""
  text = functools.partial(stream.encode_prompt, settings, PARAMS)
  state = stream.init(settings, PARAMS, _text(0), jax.random.key(4))
  past = switch.new_past(settings, state)
  step = stream.jitted_step(settings)
  for i, scene in enumerate((0, 1, 1, 0)):
    state = state.replace(text=text(_text(scene)))
    state, x0 = step(PARAMS, state, stream.chunk_ticks(settings.schedule, i))
    past = switch.jitted_remember(settings)(past, state, x0)
  state, past = switch.switch(
    settings,
    PARAMS,
    state,
    past,
    text(_text(prompt)),
    switch.SwitchConfig(cache),
  )
  prompts = np.asarray(state.memory.prompt)
  ticks = stream.chunk_ticks(settings.schedule, 4)
  return step(PARAMS, state, ticks)[1], prompts


def test_a_bank_is_made_anew_at_a_switch():
  settings = _settings(schedules.euler(1), BANK, window=4)
  kept, before = _switched(settings, 'keep', 0)
  # Its one recent chunk was made with this very prompt: nothing changes.
  same, _ = _switched(settings, 'recache', 0)
  np.testing.assert_allclose(same, kept, atol=1e-5)
  other, after = _switched(settings, 'recache', 2)
  left, _ = _switched(settings, 'keep', 2)
  assert jnp.abs(other - left).max() > 1e-5
  # Chunks are found by what they show.
  np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_bank_is_not_for_the_published_re_cache():
  settings = _settings(schedules.euler(1), BANK, window=4)
  with pytest.raises(UserError, match='upstream'):
    _switched(settings, 'upstream', 2)
