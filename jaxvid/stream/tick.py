"""One tick of a stream: the network with guidance, told a noise level."""

import operator

import jax
import jax.numpy as jnp

from jaxvid.diffusion import solvers
from jaxvid.memory import Memory
from jaxvid.models import conditioning
from jaxvid.models.conditioning import Inputs
from jaxvid.models.dit import Modulation, TextKV, modulation
from jaxvid.stream.state import Settings, Ticks


def velocity(
  settings: Settings,
  params,
  x,
  t,
  text: TextKV,
  memory,
  plan=None,
  inputs: Inputs | None = None,
):
  """One tick with guidance: velocity `[B, F, H, W, C]` and the memory.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    x: noisy latents `[B, F, H, W, C]`.
    t: time step, a scalar or one per frame `[F]`; or the `Modulation` it
      amounts to.
    text: keys and values of the prompt(s).
    memory: past keys and values.
    plan: see `DiT`.
    inputs: what joins the latents; needed by a model that takes more.
  """
  x = conditioning.join(settings.inputs, x, inputs)
  if settings.guided:
    x = jnp.concatenate([x, x])
  if not isinstance(t, Modulation):
    t = jnp.asarray(t, jnp.float32)
    t = jnp.broadcast_to(t, x.shape[: 1 + t.ndim])
  v, memory = settings.network.apply(
    {'params': params}, x, t, text, memory, plan
  )
  if settings.guided:
    cond, uncond = jnp.split(v, 2)
    v = solvers.guide(cond, uncond, settings.guidance)
  return v, memory


def levels(settings: Settings, params, ticks: Ticks):
  """What the network is told of the ticks' noise levels, and of the extra's.

  Time steps; fused, the `Modulation` they amount to, of all ticks at once.
  """
  if not settings.fused:
    return ticks.t, ticks.context_t
  every = jnp.append(jnp.asarray(ticks.t), ticks.context_t)
  table = jax.vmap(
    lambda t: modulation(settings.config, params, t[None, None])
  )(every)
  return (
    jax.tree.map(operator.itemgetter(at), table) for at in (slice(-1), -1)
  )


def chunk_plan(settings: Settings, memory, frames: int):
  """The plan that all ticks of a chunk share; None: every tick makes its own.

  They are the same. Made before the loop over ticks, angles of the rotary
  embedding are computed once and not in every tick.
  """
  if not settings.fused or not isinstance(memory, Memory):
    return None
  config = settings.config
  return memory.plan(
    frames, settings.backend, config.rope_theta, config.rope_grid
  )
