"""Flow matching: what a noisy latent is, and how to take it apart again.

A latent at noise level sigma is x = (1 - sigma) x0 + sigma eps and the model
predicts the velocity v = eps - x0. Time steps t run from 0 (clean) to 1000
(noise). *Raw* time steps are evenly spaced; `shift_t` bends them towards
noise. Everything the model sees is shifted, and sigma = t / 1000 exactly.

Noise levels have the shape of the leading axes of the latents, [], [B] or
[B, F] for latents [B, F, H, W, C]: one level for all, one per video or one
per frame.

Source: Wan2.1 and Self-Forcing (`FlowMatchScheduler`); Lipman et al. 2023.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 1000  # entries of the published table


def shift_t(t: Any, shift: float) -> Any:
  """Raw time step 0..1000 -> shifted time step; a float or any array."""
  raw = t / 1000
  return 1000 * shift * raw / (1 + (shift - 1) * raw)


def unshift_t(t: Any, shift: float) -> Any:
  """Shifted time step 0..1000 -> raw time step; inverts `shift_t`."""
  sigma = t / 1000
  return 1000 * sigma / (shift - (shift - 1) * sigma)


@functools.lru_cache
def sigma_table(shift: float) -> np.ndarray:
  """The published table: 1000 shifted noise levels, largest first, no 0."""
  raw = np.linspace(1, 0, STEPS + 1)[:-1]
  table = shift * raw / (1 + (shift - 1) * raw)
  table.flags.writeable = False
  return table


def sigma_at(t: jax.Array) -> jax.Array:
  """Noise level of a shifted time step: exactly t / 1000."""
  return jnp.asarray(t, jnp.float32) / 1000


def table_sigma_at(t: jax.Array, shift: float) -> jax.Array:
  """Noise level of the table entry nearest to t, as published code does.

  Only for parity with published pipelines. The difference from `sigma_at`
  matters near 0: the table of shift 5 ends at 0.00498 and never reaches 0.
  """
  table = jnp.asarray(sigma_table(shift), jnp.float32)
  distance = jnp.abs(table * 1000 - jnp.asarray(t, jnp.float32)[..., None])
  return table[jnp.argmin(distance, -1)]


def expand(sigma: jax.Array, x: jax.Array) -> jax.Array:
  """Appends axes to a noise level so that it broadcasts against `x`."""
  sigma = jnp.asarray(sigma)
  return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


def add_noise(x0: jax.Array, noise: jax.Array, sigma: jax.Array) -> jax.Array:
  """Clean latents and noise [B, F, H, W, C] -> latents at level `sigma`."""
  sigma = expand(sigma, x0)
  return (1 - sigma) * x0 + sigma * noise


def to_x0(x: jax.Array, velocity: jax.Array, sigma: jax.Array) -> jax.Array:
  """Clean latents that a velocity promises: x - sigma v."""
  return x - expand(sigma, x) * velocity


def to_velocity(x: jax.Array, x0: jax.Array, sigma: jax.Array) -> jax.Array:
  """Velocity that leads from `x` at level `sigma` > 0 to `x0`."""
  return (x - x0) / expand(sigma, x)


def euler_step(
  x: jax.Array, velocity: jax.Array, sigma: jax.Array, next_sigma: jax.Array
) -> jax.Array:
  """Moves `x` from one noise level to the next along the velocity."""
  return x + velocity * expand(jnp.asarray(next_sigma) - sigma, x)


def training_target(x0: jax.Array, noise: jax.Array) -> jax.Array:
  """What the model is trained to predict: noise - x0."""
  return noise - x0


@functools.lru_cache
def _weight_scale(shift: float) -> tuple[float, float]:
  """Offset and factor that give the published weights mean 1."""
  bell = np.exp(-2 * (sigma_table(shift) - 0.5) ** 2)
  offset = float(bell.min())
  return offset, STEPS / float((bell - offset).sum())


def training_weight(t: jax.Array, shift: float) -> jax.Array:
  """Bell-shaped loss weight of a shifted time step, mean 1 over the table.

  exp(-2 (sigma - 1/2)^2), lowered to touch 0 at its end and scaled. The
  published lookup snaps t to the table; here the formula is evaluated at t
  itself and kept from going below 0 outside the table.
  """
  offset, factor = _weight_scale(shift)
  bell = jnp.exp(-2 * (sigma_at(t) - 0.5) ** 2)
  return jnp.maximum(bell - offset, 0) * factor
