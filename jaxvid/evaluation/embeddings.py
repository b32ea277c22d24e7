"""Light embeddings of pictures: edges and colours, nothing learned.

Stand-ins for DINO and CLIP features: cosine similarity of two embeddings is 1
for equal pictures and falls as shapes or colours change. All entries are >= 0,
so similarities are between 0 and 1.
"""

import numpy as np

from jaxvid.data.flow import luma

SIDE = 48  # pixels that a picture is reduced to
_CELLS, _DIRECTIONS, _LEVELS = 4, 8, 6


def resized(image: np.ndarray, side: int = SIDE) -> np.ndarray:
  """The nearest pixels of `[H, W, ...]` on a square grid."""
  rows, columns = ((np.arange(side) + 0.5) * n // side for n in image.shape[:2])
  return image[rows.astype(int)][:, columns.astype(int)]


def edges(image: np.ndarray) -> np.ndarray:
  """Directions of edges by place, `[128]`, of unit length (or 0).

  Histograms of 8 gradient directions in 4 x 4 cells, weighted by strength.

  Args:
    image: uint8 `[side, side, 3]`.
  """
  gy, gx = np.gradient(luma(image))
  strength = np.hypot(gx, gy)
  turn = np.arctan2(gy, gx) / (2 * np.pi) % 1
  direction = (turn * _DIRECTIONS).astype(int) % _DIRECTIONS
  cell = np.arange(len(image)) * _CELLS // len(image)
  cell = cell[:, None] * _CELLS + cell
  index = (cell * _DIRECTIONS + direction).ravel()
  size = _CELLS * _CELLS * _DIRECTIONS
  return _unit(np.sqrt(np.bincount(index, strength.ravel(), size)))


def colours(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """How much of which colour, `[216]`, of unit length (or 0).

  Every pixel is shared between neighbouring levels of red, green and blue, so
  that a small change of colour is a small change here.

  Args:
    image: uint8 `[H, W, 3]`.
    mask: bool `[H, W]` of the pixels that count; none: all.
  """
  pixels = image.reshape(-1, 3) if mask is None else image[mask]
  place = pixels.astype(np.float32) * ((_LEVELS - 1) / 255)
  low = np.minimum(place.astype(int), _LEVELS - 2)
  share = place - low
  total = np.zeros(_LEVELS**3)
  for corner in np.ndindex(2, 2, 2):
    weight = np.where(corner, share, 1 - share).prod(1)
    at = low + corner
    index = (at[:, 0] * _LEVELS + at[:, 1]) * _LEVELS + at[:, 2]
    total += np.bincount(index, weight, _LEVELS**3)
  return _unit(np.sqrt(total))


def embed(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """Edges and colours of one picture, `[344]`, both counting the same.

  Args:
    image: uint8 `[H, W, 3]`.
    mask: bool `[H, W]` of the pixels whose colours count; none: all.
  """
  small = resized(image)
  inside = None if mask is None else resized(mask)
  if inside is not None and not inside.any():
    inside = None
  return np.concatenate([edges(small), colours(small, inside)])


def _unit(x: np.ndarray) -> np.ndarray:
  return (x / max(np.linalg.norm(x), 1e-12)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Cosine similarity along the last axis; 0 where one of them is 0."""
  lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  return (a * b).sum(-1) / np.maximum(lengths, 1e-12)
