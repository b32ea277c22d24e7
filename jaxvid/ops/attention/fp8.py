"""Keys and queries in 8-bit floats (e4m3).

e4m3 keeps 3 bits behind the point between 2^-6 and 448. After the norm of
queries and keys all but small entries lie there, so a scale of 1 loses
nothing; scales serve models without that norm.
"""

import jax
import jax.numpy as jnp

E4M3 = jnp.float8_e4m3fn
MAX = 448.0


def quantize(x: jax.Array, scale: jax.Array | float = 1.0) -> jax.Array:
  """x / scale as e4m3, clipped to its range."""
  scaled = x.astype(jnp.float32) / scale
  return jnp.clip(scaled, -MAX, MAX).astype(E4M3)


def head_scale(x: jax.Array) -> jax.Array:
  """float32 `[N]`: brings the largest entry of each head to 448.

  Args:
    x: queries or keys `[B, T, N, D]`.
  """
  return _scale(x, (0, 1, 3))


def page_scale(x: jax.Array, page: int) -> jax.Array:
  """float32 `[N, pages]`: the same for every `page` neighbours of the keys.

  Args:
    x: keys `[B, S, N, D]`; the last page may be shorter.
    page: keys per page.
  """
  batch, size, heads, dim = x.shape
  x = jnp.pad(x, ((0, 0), (0, -size % page), (0, 0), (0, 0)))
  x = x.reshape(batch, -1, page, heads, dim)
  return _scale(x, (0, 2, 4)).T


def expand(scale: jax.Array, size: int, page: int) -> jax.Array:
  """Scales as a factor `[S, N, 1]` of keys: `[]`, `[N]` or `[N, pages]`."""
  scale = jnp.asarray(scale, jnp.float32)
  if scale.ndim < 2:
    return jnp.broadcast_to(scale, (size, *(scale.shape or (1,))))[..., None]
  return jnp.repeat(scale, page, axis=1)[:, :size].T[..., None]


def _scale(x, axes):
  top = jnp.max(jnp.abs(x.astype(jnp.float32)), axis=axes)
  return jnp.where(top > 0, top / MAX, 1.0)
