"""Rotary position embedding over (frame, row, column).

As in Wan2.1: interleaved pairs, the head dimension split into a temporal, a
vertical and a horizontal part (44 | 42 | 42 of 128), theta 10,000 unless the
model says otherwise. Angles are computed, never looked up, so a stream has no
last frame.
"""

import jax
import jax.numpy as jnp
import numpy as np

# A frame index is split into a multiple of this and a rest, each multiplied
# with a float64 constant: the angle of frame 1,000,000 keeps four digits
# where a plain float32 product would keep two.
_SPLIT = 256


def axis_dims(head_dim: int) -> tuple[int, int, int]:
  """Head dimensions given to frame, row and column."""
  side = 2 * (head_dim // 6)
  return head_dim - 2 * side, side, side


def _frequencies(size: int, theta: float) -> np.ndarray:
  return theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)


def _frame_angles(frames: jax.Array, size: int, theta: float) -> jax.Array:
  omega = _frequencies(size, theta)
  coarse = np.mod(_SPLIT * omega, 2 * np.pi).astype(np.float32)
  frames = jnp.asarray(frames, jnp.int32)
  high = (frames // _SPLIT).astype(jnp.float32)[:, None]
  low = (frames % _SPLIT).astype(jnp.float32)[:, None]
  return high * coarse + low * omega.astype(np.float32)


def rotation(
  frames: jax.Array,
  height: int,
  width: int,
  head_dim: int,
  theta: float = 10_000.0,
) -> jax.Array:
  """Cosines and sines of a grid of tokens.

  Args:
    frames: int `[F]`, temporal position of each latent frame.
    height: rows of tokens.
    width: columns of tokens.
    head_dim: D.
    theta: longest wavelength over 2 pi, about.

  Returns:
    float32 `[2, F * height * width, D / 2]`, tokens in order frame, row,
    column.
  """
  d_frame, d_row, d_column = axis_dims(head_dim)
  rows = np.arange(height)[:, None] * _frequencies(d_row, theta)
  columns = np.arange(width)[:, None] * _frequencies(d_column, theta)
  shape = (len(frames), height, width)
  parts = [
    jnp.broadcast_to(part, (*shape, part.shape[-1]))
    for part in (
      _frame_angles(frames, d_frame, theta)[:, None, None],
      rows.astype(np.float32)[None, :, None],
      columns.astype(np.float32)[None, None],
    )
  ]
  angle = jnp.concatenate(parts, -1).reshape(-1, head_dim // 2)
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def rotate(x: jax.Array, rotation: jax.Array) -> jax.Array:
  """Rotates the interleaved pairs of x `[B, T, N, D]`.

  Args:
    x: queries or keys.
    rotation: `[2, T, D / 2]` from `rotation`.

  Returns:
    `[B, T, N, D]` in the dtype of `x`, computed in float32.
  """
  cos, sin = rotation[0, :, None], rotation[1, :, None]
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  a, b = pairs[..., 0], pairs[..., 1]
  y = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
  return y.reshape(x.shape).astype(x.dtype)
