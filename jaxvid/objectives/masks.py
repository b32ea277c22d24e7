"""Means over the latent frames that count."""

import jax
import jax.numpy as jnp


def masked_mean(error: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean of an error over the frames that count.

  Args:
    error: `[B, F, ...]`.
    mask: `[B, F]`, True = counts; None = all do.

  Returns:
    A scalar; 0 where no frame counts.
  """
  if error.size == 0:
    return jnp.zeros(())
  if mask is None:
    return jnp.mean(error)
  frames = jnp.mean(error.reshape(*error.shape[:2], -1), axis=-1)
  return jnp.sum(jnp.where(mask, frames, 0)) / jnp.maximum(jnp.sum(mask), 1)


def pair_mask(mask: jax.Array | None) -> jax.Array | None:
  """Frames `[B, F]` -> neighbouring pairs `[B, F - 1]`: both must count."""
  return None if mask is None else mask[:, 1:] & mask[:, :-1]
