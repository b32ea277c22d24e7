"""Distribution matching distillation: a generator, a critic, a teacher.

The gradient of the KL divergence between generated and real clips, both seen
through noise, is the difference of two denoisers' predictions: the critic's,
which follows the generator, and the frozen teacher's. Nothing is
differentiated through either. The same loss serves any generator: forced
(CausVid), rolled out (Self-Forcing) or diagonal (DiagDistill eq. 2).

The teacher's guidance belongs to its callable: weight w means u + w (c - u);
the published "guidance 3.0" is w = 4.

Sources: Yin et al. 2024 (DMD eq. 7, 8; DMD2); Self-Forcing `model/dmd.py`.
Unlike upstream, noise levels are exact, and both denoisers are asked with the
level that the noise was added with (upstream's score wrappers use another
shift than its generator). `TimesConfig.table` restores the published lookup.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.objectives.masks import masked_mean
from jaxvid.objectives.times import (
  Denoiser,
  TimesConfig,
  diffuse,
  from_raw,
  sample_times,
  sigma,
)

__all__ = [
  'DMDConfig',
  'critic_error',
  'critic_loss',
  'from_raw',
  'generator_loss',
  'gradient',
  'predictions',
  'sample_times',
  'surrogate',
]


@dataclasses.dataclass(frozen=True)
class DMDConfig(TimesConfig):
  """Settings of generator and critic.

  Attributes:
    normalise: divide the gradient of each clip by its distance from the
      teacher's prediction (DMD eq. 8).
    critic: what the critic's error is measured on: its velocity, 'flow'
      (*released config*), or its clean prediction, 'x0'.
  """

  normalise: bool = True
  critic: Literal['flow', 'x0'] = 'flow'


def predictions(
  real: Denoiser,
  fake: Denoiser,
  x: jax.Array,
  key: jax.Array,
  config: DMDConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What critic and teacher make of noisy clips.

  Args:
    real: the teacher, with its guidance: `(x_t, t [B]) -> x0`.
    fake: the critic, conditional only: `(x_t, t [B]) -> x0`.
    x: generated latents `[B, F, H, W, C]`.
    key: randomness of levels and noise.
    config: settings.

  Returns:
    `fake_x0`, `real_x0` like `x` and time steps `[B]`; no gradient.
  """
  x_t, _, t = diffuse(jax.lax.stop_gradient(x), key, config)
  stop = jax.lax.stop_gradient
  return stop(fake(x_t, t)), stop(real(x_t, t)), t


def gradient(
  x: jax.Array, fake_x0: jax.Array, real_x0: jax.Array, normalise: bool = True
) -> jax.Array:
  """The direction from real to generated clips, for each latent.

  Every clip is divided by its own mean |x - real_x0| over all its frames,
  masked ones too. Where that is 0 the gradient is 0; upstream turns every
  NaN into 0, which would hide a broken network.

  Args:
    x: generated latents `[B, F, H, W, C]`.
    fake_x0: the critic's prediction, like `x`.
    real_x0: the teacher's prediction, like `x`.
    normalise: divide at all.

  Returns:
    Like `x`.
  """
  difference = fake_x0 - real_x0
  if not normalise:
    return difference
  axes = tuple(range(1, x.ndim))
  scale = jnp.mean(jnp.abs(x - real_x0), axis=axes, keepdims=True)
  safe = jnp.where(scale == 0, 1, scale)
  return jnp.where(scale == 0, 0, difference / safe)


def surrogate(
  x: jax.Array, grad: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """A loss whose gradient is `grad`: mean (x - sg(x - grad))^2 / 2.

  Args:
    x: generated latents `[B, F, H, W, C]`.
    grad: like `x`; treated as constant.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    A scalar. Its gradient is `grad` / (elements that count).
  """
  # Written so that `grad` loses no digits when x is larger than it.
  step = x - jax.lax.stop_gradient(x) + jax.lax.stop_gradient(grad)
  return 0.5 * masked_mean(jnp.square(step), mask)


def generator_loss(
  real: Denoiser,
  fake: Denoiser,
  x: jax.Array,
  key: jax.Array,
  config: DMDConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Distribution matching of generated clips (DMD eq. 7).

  Args:
    real: the teacher, with its guidance: `(x_t, t [B]) -> x0`.
    fake: the critic, conditional only: `(x_t, t [B]) -> x0`.
    x: generated latents `[B, F, H, W, C]`, with gradient.
    key: randomness of levels and noise.
    config: settings.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss and metrics.
  """
  fake_x0, real_x0, t = predictions(real, fake, x, key, config)
  grad = gradient(x, fake_x0, real_x0, config.normalise)
  loss = surrogate(x, grad, mask)
  return loss, {'dmd_gradient': jnp.mean(jnp.abs(grad)), 'dmd_t': jnp.mean(t)}


def critic_error(
  velocity: Denoiser,
  x: jax.Array,
  noise: jax.Array,
  t: jax.Array,
  config: DMDConfig,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Error of the critic on generated clips at given levels.

  Args:
    velocity: the critic: `(x_t, t [B]) -> velocity`.
    x: generated latents `[B, F, H, W, C]`; treated as constant.
    noise: like `x`.
    t: time steps `[B]`.
    config: settings.
    mask: frames that count `[B, F]`; None = all.
  """
  x = jax.lax.stop_gradient(x)
  level = sigma(t, config)
  x_t = flow.add_noise(x, noise, level)
  predicted = velocity(x_t, t)
  if config.critic == 'x0':
    error = x - flow.to_x0(x_t, predicted, level)
  else:
    error = predicted - flow.training_target(x, noise)
  return masked_mean(jnp.square(error), mask)


def critic_loss(
  velocity: Denoiser,
  x: jax.Array,
  key: jax.Array,
  config: DMDConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Keeps the critic a denoiser of what the generator makes now.

  Args:
    velocity: the critic: `(x_t, t [B]) -> velocity`.
    x: generated latents `[B, F, H, W, C]`; treated as constant.
    key: randomness of levels and noise.
    config: settings.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss and metrics.
  """
  t_key, noise_key = jax.random.split(key)
  t = sample_times(t_key, config, x.shape[0])
  noise = jax.random.normal(noise_key, x.shape)
  loss = critic_error(velocity, x, noise, t, config, mask)
  return loss, {'critic_t': jnp.mean(t)}
