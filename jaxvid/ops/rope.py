"""Rotary position embedding over (frame, row, column).

As in Wan2.1: interleaved pairs, the head dimension split into a temporal, a
vertical and a horizontal part (44 | 42 | 42 of 128), theta 10,000 unless the
model says otherwise. Angles are computed, never looked up, so a stream has no
last frame. In space positions may stretch, so that a picture of any size spans
the same angles; in time the interval is fixed (AAPT supplement C).
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


def stretched(size: int, known: int) -> np.ndarray:
  """Positions of `size` tokens spread over a picture of `known`, `[size]`.

  The centre of a token lies where it lies in the picture, as when a picture
  is resized: of equal sizes these are 0, 1, 2, ...
  """
  return (np.arange(size) + 0.5) * (known / size) - 0.5


def rotation(
  frames: jax.Array,
  height: int,
  width: int,
  head_dim: int,
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> jax.Array:
  """Cosines and sines of a grid of tokens.

  Args:
    frames: int `[F]`, temporal position of each latent frame.
    height: rows of tokens.
    width: columns of tokens.
    head_dim: D.
    theta: longest wavelength over 2 pi, about.
    grid: (rows, columns) that every picture is stretched to; None = one step
      per token, whatever the size.

  Returns:
    float32 `[2, F * height * width, D / 2]`, tokens in order frame, row,
    column.
  """
  d_frame, d_row, d_column = axis_dims(head_dim)
  known_rows, known_columns = grid or (height, width)
  rows = stretched(height, known_rows)[:, None]
  rows = rows * _frequencies(d_row, theta)
  columns = stretched(width, known_columns)[:, None]
  columns = columns * _frequencies(d_column, theta)
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


def split_pairs(head_dim: int) -> np.ndarray:
  """Order `[D]` that puts the first of every pair before all the second.

  Weights that make queries and keys are permuted with it once; then a
  rotation reads two halves where it read every other number.
  """
  return np.arange(head_dim).reshape(-1, 2).T.reshape(-1)


def rotate(x: jax.Array, rotation: jax.Array, split: bool = False) -> jax.Array:
  """Rotates the pairs of x `[B, T, N, D]`.

  Args:
    x: queries or keys.
    rotation: `[2, T, D / 2]` from `rotation`.
    split: pairs are i and i + D / 2 (see `split_pairs`), not neighbours.

  Returns:
    `[B, T, N, D]` in the dtype of `x`, computed in float32.
  """
  cos, sin = rotation[0, :, None], rotation[1, :, None]
  if split:
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    y = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    return y.astype(x.dtype)
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  a, b = pairs[..., 0], pairs[..., 1]
  y = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
  return y.reshape(x.shape).astype(x.dtype)
