"""The networks of distillation as plain fields of (noisy clip, time step)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow, solvers
from jaxvid.models import discriminator
from jaxvid.training.distill_config import DistillConfig


class Texts(NamedTuple):
  """Text encoder outputs `[B, text_len, text_dim]`."""

  prompt: jax.Array
  negative: jax.Array


def velocity(network, params, text):
  """A bidirectional network as `(x_t, t [B]) -> velocity`."""

  def field(x, t):
    return network.apply({'params': params}, x, t, text)[0]

  return field


def guided(config: DistillConfig, params, texts: Texts):
  """The teacher's velocity with guidance."""
  if config.guidance == 1.0:
    return velocity(config.teacher_network, params, texts.prompt)
  both = jnp.concatenate([texts.prompt, texts.negative])
  both_field = velocity(config.teacher_network, params, both)

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
