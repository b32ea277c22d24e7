"""The networks of distillation as plain fields of (noisy clip, time step)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow, solvers
from jaxvid.models import discriminator
from jaxvid.training.diffusion import forcing_plan
from jaxvid.training.distill_config import DistillConfig


class Texts(NamedTuple):
  """Text encoder outputs `[B, text_len, text_dim]`."""

  prompt: jax.Array
  negative: jax.Array


class Past(NamedTuple):
  """A clip whose chunks are scored one behind the other.

  Attributes:
    clip: clean latents `[B, F, H, W, C]`, without gradient.
    chunk: latent frames per chunk.
  """

  clip: jax.Array
  chunk: int

  def plan(self, network, shape):
    """What `[clean | noisy]` tokens of latents `[F, H, W]` attend."""
    frames, height, width = shape
    _, rows, columns = network.config.patch_size
    return forcing_plan(
      network.config,
      'teacher',
      self.chunk,
      frames,
      height // rows,
      width // columns,
      network.backend,
    )


def past_of(config: DistillConfig, clip: jax.Array) -> Past | None:
  """What the scores see besides the noisy clip."""
  if config.scored == 'whole':
    return None
  chunk = config.scored_chunk or config.chunk
  return Past(jax.lax.stop_gradient(clip), chunk)


def velocity(network, params, text, past: Past | None = None):
  """A network as `(x_t [B, F, H, W, C], t [B]) -> velocity`.

  Args:
    network: bidirectional, or causal with a past.
    params: its parameters.
    text: encoded prompts `[B, text_len, text_dim]`.
    past: with it, every chunk is seen behind the clean ones before it.
  """

  def field(x, t):
    if past is None:
      return network.apply({'params': params}, x, t, text)[0]
    frames = x.shape[1]
    times = jnp.broadcast_to(t[:, None], x.shape[:2])
    times = jnp.concatenate([jnp.zeros_like(times), times], 1)
    both = jnp.concatenate([past.clip, x], 1)
    plan = past.plan(network, x.shape[1:4])
    v = network.apply({'params': params}, both, times, text, None, plan)[0]
    return v[:, frames:]

  return field


def guided(
  config: DistillConfig, params, texts: Texts, past: Past | None = None
):
  """The teacher's velocity with guidance."""
  if config.guidance == 1.0:
    return velocity(config.teacher_network, params, texts.prompt, past)
  both = jnp.concatenate([texts.prompt, texts.negative])
  if past is not None:
    past = past._replace(clip=jnp.concatenate([past.clip, past.clip]))
  both_field = velocity(config.teacher_network, params, both, past)

  def field(x, t):
    v = both_field(jnp.concatenate([x, x]), jnp.concatenate([t, t]))
    cond, uncond = jnp.split(v, 2)
    return solvers.guide(cond, uncond, config.guidance)

  return field


def denoiser(velocity):
  """The same network as `(x_t, t [B]) -> x0`."""

  def denoise(x, t):
    return flow.to_x0(x, velocity(x, t), flow.sigma_at(t))

  return denoise


def logits(config: DistillConfig, judging, texts: Texts):
  """The critic's blocks with their head as `(x, t [B]) -> logits`."""
  params = {'dit': judging['critic'], 'head': judging['judge']}

  def field(x, t):
    return discriminator.discriminate(
      config.network, config.judge, params, x, t, texts.prompt
    )

  return field
