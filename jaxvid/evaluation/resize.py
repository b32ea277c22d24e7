"""Resizing as the released benchmark's preprocessing does it.

Bilinear and bicubic (a = -0.75) interpolation without antialiasing, sample
points at pixel centres, borders repeated: what torchvision calls
`antialias=False`.
"""

import functools

import numpy as np


@functools.lru_cache(maxsize=64)
def matrix(source: int, target: int, cubic: bool) -> np.ndarray:
  """Weights `[target, source]` of one axis."""
  place = (np.arange(target) + 0.5) * source / target - 0.5
  if not cubic:
    place = np.maximum(place, 0)
  low = np.floor(place).astype(int)
  share = place - low
  rows = np.zeros((target, source), np.float32)
  taps = (-1, 0, 1, 2) if cubic else (0, 1)
  for tap in taps:
    away = np.abs(share - tap)
    weight = _cubic(away) if cubic else 1 - away
    at = np.clip(low + tap, 0, source - 1)
    np.add.at(rows, (np.arange(target), at), weight)
  return rows


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
  return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize(
  image: np.ndarray, height: int, width: int, cubic: bool
) -> np.ndarray:
  """`[H, W, C]` -> float32 `[height, width, C]`."""
  rows = matrix(image.shape[0], height, cubic)
  columns = matrix(image.shape[1], width, cubic)
  image = np.tensordot(rows, image.astype(np.float32), 1)
  return np.tensordot(columns, image, (1, 1)).swapaxes(0, 1)


def short_side(image: np.ndarray, side: int, cubic: bool) -> np.ndarray:
  """Resizes uint8 so that the short side is `side`, rounded to uint8 again."""
  height, width = image.shape[:2]
  if height <= width:
    size = side, int(side * width / height)
  else:
    size = int(side * height / width), side
  result = resize(image, *size, cubic)
  return np.clip(np.round(result), 0, 255).astype(np.uint8)


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
  """The middle `[side, side, C]`."""
  top = round((image.shape[0] - side) / 2)
  left = round((image.shape[1] - side) / 2)
  return image[top : top + side, left : left + side]
