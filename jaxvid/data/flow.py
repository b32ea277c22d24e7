"""Optical flow on small pictures: Lucas-Kanade, coarse to fine, NumPy alone.

Made to tell how much moves and where nothing does, for thousands of frames
on a CPU; it is no match for learned flow along edges.
"""

import numpy as np
from scipy import ndimage

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Shorter sides are not halved any more.
_COARSEST = 12
_STEPS = 2  # per level
_FARTHEST = 2.0  # pixels of a level per step
# Noise variance of a gradient, in grey levels squared: areas flatter than
# this keep what coarser levels say.
_NOISE = 4.0


def luma(frames: np.ndarray) -> np.ndarray:
  """Rec. 601 luma of RGB frames `[..., H, W, 3]`, float32 0..255."""
  weights = _LUMA
  y = frames[..., 0] * weights[0]
  y += frames[..., 1] * weights[1]
  y += frames[..., 2] * weights[2]
  return y


def shrink(image: np.ndarray, short: int) -> np.ndarray:
  """Block means of `[H, W]`, the short side about `short` pixels.

  Returns:
    float32, by a whole factor smaller; a rest at the right and bottom is
    left out. Pictures that are small already stay.
  """
  factor = max(1, min(image.shape) // short)
  if factor == 1:
    return image.astype(np.float32, copy=False)
  height, width = (n // factor for n in image.shape)
  image = image[: height * factor, : width * factor]
  # Rows first: adding whole rows is the fast direction.
  rows = image.reshape(height, factor, -1).mean(1, dtype=np.float32)
  return rows.reshape(height, width, factor).mean(2, dtype=np.float32)


def flow(before: np.ndarray, after: np.ndarray, window: int = 7) -> np.ndarray:
  """Where every pixel went, `[H, W, 2]` (x, y) in pixels.

  Args:
    before: luma `[H, W]`, 0..255.
    after: the same of the next picture.
    window: pixels over which the motion is taken to be the same.

  Returns:
    u with after(x + u) = before(x); 0 for pictures without detail.
  """
  if min(before.shape) < 2:
    return np.zeros((*before.shape, 2), np.float32)
  pyramid = [(before.astype(np.float32), after.astype(np.float32))]
  while min(pyramid[-1][0].shape) >= 2 * _COARSEST:
    pyramid.append(tuple(_half(image) for image in pyramid[-1]))
  u = np.zeros((2, *pyramid[-1][0].shape), np.float32)
  for one, two in reversed(pyramid):
    if u.shape[1:] != one.shape:
      u = 2 * _twice(u, one.shape)
    u = _refine(one, two, u, window)
  return np.moveaxis(u, 0, -1)


def _half(image: np.ndarray) -> np.ndarray:
  height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
  even, odd = image[0:height:2, :width], image[1:height:2, :width]
  rows = even + odd
  return 0.25 * (rows[:, ::2] + rows[:, 1::2])


def _twice(u: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Every value four times, the last rows and columns repeated."""
  rows = np.minimum(np.arange(shape[0]) // 2, u.shape[1] - 1)
  columns = np.minimum(np.arange(shape[1]) // 2, u.shape[2] - 1)
  return u[:, rows][:, :, columns]


def _refine(one, two, u, window: int) -> np.ndarray:
  gy, gx = np.gradient(one)

  def box(image):
    return ndimage.uniform_filter(image, window, mode='nearest')

  xx, xy, yy = box(gx * gx) + _NOISE, box(gx * gy), box(gy * gy) + _NOISE
  scale = 1 / (xx * yy - xy * xy)
  for _ in range(_STEPS):
    error = _sample(two, u) - one
    ex, ey = box(gx * error), box(gy * error)
    step = np.stack([xy * ey - yy * ex, xy * ex - xx * ey]) * scale
    u = u + np.clip(step, -_FARTHEST, _FARTHEST)
  return u


def _sample(image: np.ndarray, u: np.ndarray) -> np.ndarray:
  """image(x + u), bilinear, borders repeated."""
  height, width = image.shape
  x = np.clip(np.arange(width, dtype=np.float32) + u[0], 0, width - 1.001)
  y = np.arange(height, dtype=np.float32)[:, None] + u[1]
  y = np.clip(y, 0, height - 1.001)
  left, top = x.astype(np.int32), y.astype(np.int32)
  x, y = x - left, y - top
  flat, index = image.ravel(), top * width + left
  upper = flat.take(index) * (1 - x) + flat.take(index + 1) * x
  index += width
  lower = flat.take(index) * (1 - x) + flat.take(index + 1) * x
  return upper * (1 - y) + lower * y


def magnitude(before: np.ndarray, after: np.ndarray) -> np.ndarray:
  """Length of the flow `[H, W]` in pixels."""
  u = flow(before, after)
  return np.hypot(u[..., 0], u[..., 1])
