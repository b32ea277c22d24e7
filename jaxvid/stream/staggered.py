"""Streams with several chunks in flight, later ones noisier.

Every tick is one pass over all of them, each at a noise level of its own. A
step runs the ticks after which the oldest chunk is finished; it is then
committed by itself, and a new one of pure noise joins at the end. So chunks
leave as often as with one at a time, from fewer and longer passes, and the
first of them after as many ticks as ever.

Sources: MAGI-1 (chunks see those before them); progressive autoregressive
video diffusion, PAVDM (all of the window sees all of it).
"""

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.memory.flight import flight_plan
from jaxvid.stream.begin import begin
from jaxvid.stream.draws import (
  chunk_keys,
  latent_shape,
  start_noise,
  tick_noise,
)
from jaxvid.stream.state import Settings, State, Ticks
from jaxvid.stream.tick import velocity


def step(
  settings: Settings, params, state: State, ticks: Ticks
) -> tuple[State, jax.Array]:
  """The next chunk; see `stream.step`.

  The first step also runs what the others find done: the chunks behind the
  first one begin one after the other.
  """
  schedule, shape = settings.schedule, latent_shape(settings, state)
  count, frames = schedule.flight, shape[1]
  stage = len(ticks.t) // count
  memory = begin(settings, state.memory, state.text)
  place = jnp.arange(count)
  x = state.flight
  if x is None:
    x = jnp.concatenate([_noise(settings, state, i) for i in range(count)], 1)
    for begun in range(1, count):
      done = begun - 1 - place
      x = _ticks(settings, params, state, ticks, memory, x, done, stage)
  done = count - 1 - place
  x = _ticks(settings, params, state, ticks, memory, x, done, stage)
  x0 = x[:, :frames]
  late = x0
  if schedule.extra.sigma:
    noise = tick_noise(chunk_keys(state)[1], len(ticks.t) - 1, shape)
    late = flow.add_noise(x0, noise, ticks.context_sigma)
  _, memory = velocity(
    settings, params, late, ticks.context_t, state.text, memory
  )
  fresh = _noise(settings, state, count)
  state = state.replace(
    memory=memory.advance(frames),
    chunk=state.chunk + 1,
    flight=jnp.concatenate([x[:, frames:], fresh], 1),
  )
  return state, x0


def _noise(settings: Settings, state: State, ahead: int) -> jax.Array:
  """What the chunk `ahead` of the next one begins from."""
  later = state.replace(chunk=state.chunk + ahead)
  return start_noise(settings, later, latent_shape(settings, later))


def _ticks(settings, params, state, ticks, memory, x, done, stage):
  """One stage of every chunk that has begun.

  Args:
    settings, params, state: see `step`.
    ticks: of a chunk.
    memory: begun.
    x: latents in flight `[B, W F, H, W, C]`.
    done: stages behind each chunk `[W]`; below 0 it has not begun and stays
      pure noise.
    stage: ticks of a stage.
  """
  config = settings.config
  frames = x.shape[1] // len(done)
  plan = flight_plan(
    memory,
    len(done),
    settings.schedule.mutual,
    settings.backend,
    config.rope_theta,
    config.rope_grid,
  )
  t, sigma, following = (
    jnp.asarray(column) for column in (ticks.t, ticks.sigma, ticks.next_sigma)
  )

  def tick(x, i):
    index = jnp.repeat(jnp.maximum(done, 0) * stage + i, frames)
    begun = jnp.repeat(done >= 0, frames)
    now = jnp.where(begun, t[index], t[0])
    v, _ = velocity(settings, params, x, now, state.text, memory, plan)
    change = jnp.where(begun, following[index] - sigma[index], 0)
    return x + v * change[None, :, None, None, None], None

  return jax.lax.scan(tick, x, jnp.arange(stage))[0]
