"""Noise levels at which two distributions are compared: one per clip.

Distribution matching, SiD and the GAN look at generated clips through noise.
All latent frames of a clip share one level. Source: Self-Forcing
`model/dmd.py`, `model/sid.py`, `model/gan.py`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.errors import UserError

# (noisy latents [B, F, H, W, C], time steps [B]) -> x0, velocity or logits.
Denoiser = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class TimesConfig:
  """How noise levels are drawn.

  Attributes:
    min_t: lower bound of shifted time steps (*released config* 20).
    max_t: upper bound (*released config* 980).
    shift: bends raw time steps towards noise (*paper* 5).
    min_score_timestep: smallest raw time step drawn (*released config* 0).
    table: snap noise levels to the published table, as upstream does; only
      for parity. The default is exactly t / 1000.
  """

  min_t: float = 20.0
  max_t: float = 980.0
  shift: float = 5.0
  min_score_timestep: int = 0
  table: bool = False

  def __post_init__(self):
    if not 0 <= self.min_t < self.max_t <= 1000:
      raise UserError(
        f'min_t={self.min_t} and max_t={self.max_t} must satisfy '
        '0 <= min_t < max_t <= 1000'
      )
    if self.shift <= 0:
      raise UserError(f'shift must be > 0, not {self.shift}')
    if not 0 <= self.min_score_timestep < flow.STEPS:
      raise UserError(
        f'min_score_timestep must be in [0, {flow.STEPS}), '
        f'not {self.min_score_timestep}'
      )


def from_raw(raw: jax.Array, config: TimesConfig) -> jax.Array:
  """Raw draws 0..999 of any shape -> shifted time steps within bounds."""
  t = flow.shift_t(jnp.asarray(raw, jnp.float32), config.shift)
  return jnp.clip(t, config.min_t, config.max_t)


def sample_times(key: jax.Array, config: TimesConfig, batch: int) -> jax.Array:
  """Time steps `[B]`, one per clip."""
  low = config.min_score_timestep
  return from_raw(jax.random.randint(key, (batch,), low, flow.STEPS), config)


def sigma(t: jax.Array, config: TimesConfig) -> jax.Array:
  """Noise level of a time step, exact or from the published table."""
  if config.table:
    return flow.table_sigma_at(t, config.shift)
  return flow.sigma_at(t)


def diffuse(
  x: jax.Array, key: jax.Array, config: TimesConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Adds noise to clips, each at a level of its own.

  Args:
    x: clean latents `[B, F, H, W, C]`.
    key: randomness of levels and noise.
    config: settings.

  Returns:
    Noisy latents and the noise, like `x`, and time steps `[B]`.
  """
  t_key, noise_key = jax.random.split(key)
  t = sample_times(t_key, config, x.shape[0])
  noise = jax.random.normal(noise_key, x.shape)
  return flow.add_noise(x, noise, sigma(t, config)), noise, t
