"""Losses and measures of autoencoders: pictures in [-1, 1], channels last."""

import jax
import jax.numpy as jnp


def absolute(video: jax.Array, target: jax.Array) -> jax.Array:
  """Mean absolute error."""
  return jnp.mean(jnp.abs(video - target))


def squared(video: jax.Array, target: jax.Array) -> jax.Array:
  """Mean squared error."""
  return jnp.mean(jnp.square(video - target))


def edges(video: jax.Array, target: jax.Array) -> jax.Array:
  """Mean absolute error of the differences between neighbouring pixels.

  Blur costs little in the other two, but it hides which shape it was.

  Args:
    video: `[..., H, W, C]`.
    target: the same shape.
  """
  error = video - target
  rows = jnp.abs(error[..., 1:, :, :] - error[..., :-1, :, :])
  columns = jnp.abs(error[..., :, 1:, :] - error[..., :, :-1, :])
  return jnp.mean(rows) + jnp.mean(columns)


def kl_to_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """KL of a diagonal Gaussian from the standard normal, nats per element."""
  variance = jnp.exp(log_variance)
  return 0.5 * jnp.mean(jnp.square(mean) + variance - 1.0 - log_variance)


def psnr(video: jax.Array, target: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB of each clip, `[B, ...] -> [B]`.

  The peak is 2, the range of [-1, 1]; `video` is clipped to it, as it is
  before it is shown.
  """
  error = jnp.square(jnp.clip(video, -1.0, 1.0) - target)
  error = jnp.mean(error.reshape(error.shape[0], -1), axis=1)
  return 10.0 * jnp.log10(4.0 / jnp.maximum(error, 1e-12))
