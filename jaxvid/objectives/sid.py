"""Score identity distillation: a true loss of the generated clips.

Unlike DMD's, this gradient flows through critic and teacher. Source: Zhou et
al. 2024 (SiD); Self-Forcing `model/sid.py`. The released SiD config never ran
it (its `distribution_loss` says `dmd`), so there is no published result of
this loss to compare with. The critic learns by `dmd.critic_loss`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxvid.objectives.dmd import DMDConfig
from jaxvid.objectives.masks import masked_mean
from jaxvid.objectives.times import Denoiser, diffuse


@dataclasses.dataclass(frozen=True)
class SiDConfig(DMDConfig):
  """Settings of DMD and SiD's own.

  Attributes:
    alpha: weight of the squared difference of the two predictions, which is
      subtracted (*released config* 1; SiD's paper prefers 1 to 1.2).
  """

  alpha: float = 1.0


def generator_loss(
  real: Denoiser,
  fake: Denoiser,
  x: jax.Array,
  key: jax.Array,
  config: SiDConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """mean d (real - x - alpha d) / mean |x - real|, d = real - fake.

  Equal to (1 - alpha) d^2 + d (fake - x), the form of SiD's paper. The
  normaliser, one per clip, carries no gradient.

  Args:
    real: the teacher, with its guidance: `(x_t, t [B]) -> x0`; parameters
      frozen by the caller.
    fake: the critic: `(x_t, t [B]) -> x0`; parameters frozen likewise.
    x: generated latents `[B, F, H, W, C]`, with gradient.
    key: randomness of levels and noise.
    config: settings.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss, which may be negative, and metrics.
  """
  x_t, _, t = diffuse(x, key, config)
  fake_x0, real_x0 = fake(x_t, t), real(x_t, t)
  difference = real_x0 - fake_x0
  error = difference * (real_x0 - x - config.alpha * difference)
  if config.normalise:
    axes = tuple(range(1, x.ndim))
    scale = jnp.mean(jnp.abs(x - real_x0), axis=axes, keepdims=True)
    scale = jax.lax.stop_gradient(scale)
    safe = jnp.where(scale == 0, 1, scale)
    error = jnp.where(scale == 0, 0, error / safe)
  metrics = {
    'sid_difference': jnp.mean(jnp.abs(difference)),
    'sid_t': jnp.mean(t),
  }
  return masked_mean(error, mask), metrics
