"""The extra tick of a chunk, deferred into the next chunk's first tick.

A schedule that commits clean keys and values runs the network once more on
every finished chunk, and the chunk's frames wait for it. Deferred, that pass
joins the next chunk's first tick: one forward over the tokens of both, each
at its own noise level, the same mathematics, larger matrices.
`State.pending` holds what that tick will read.
"""

import functools

import jax
import jax.numpy as jnp

from jaxvid.memory.pair import pair_plan
from jaxvid.models.dit import Modulation
from jaxvid.stream.state import Settings, State
from jaxvid.stream.tick import velocity


def tick(settings: Settings, params, x, t, context_t, state: State):
  """First tick of a chunk, with the extra tick of the chunk before it.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    x: noise of the new chunk `[B, F, H, W, C]`.
    t: its time step, or the `Modulation` that amounts to.
    context_t: those of the extra tick.
    state: the stream, with a pending chunk.

  Returns:
    Velocity of the new chunk `[B, F, H, W, C]` and the memory.
  """
  frames = x.shape[1]
  config = settings.config
  plan = pair_plan(
    state.memory, frames, settings.backend, config.rope_theta, config.rope_grid
  )
  both = jnp.concatenate([state.pending.astype(x.dtype), x], 1)
  if isinstance(t, Modulation):
    t = jax.tree.map(functools.partial(_per_frame, frames), context_t, t)
  else:
    t = jnp.repeat(jnp.stack([context_t, t]), frames)
  v, memory = velocity(
    settings, params, both, t, state.text, state.memory, plan
  )
  return v[:, frames:], memory


def _per_frame(frames, older, newer):
  """`[..., 1, n, D]` of two chunks -> `[..., 2 F, n, D]`."""
  return jnp.repeat(jnp.concatenate([older, newer], -3), frames, -3)


def settle(settings: Settings, params, state: State) -> State:
  """Runs a pending extra tick now; the stream is as if nothing was deferred.

  Before anything but the next chunk reads the memory: a change of the
  prompt, another schedule. At the end of a stream nobody needs it.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream; consumed if a tick is pending.
  """
  if state.pending is None:
    return state
  rest = state.replace(pending=None)
  return _jitted_settle(settings)(params, rest, state.pending)


@functools.lru_cache(maxsize=16)
def _jitted_settle(settings: Settings):
  def run(params, state, pending):
    frame, frames = state.memory.frame, pending.shape[1]
    context = settings.schedule.context(0)
    _, memory = velocity(
      settings,
      params,
      pending,
      context.t,
      state.text,
      state.memory.at(frame - frames),
    )
    return state.replace(memory=memory.at(frame))

  return jax.jit(run, donate_argnums=1)
