"""Where the subject is: masks for the drift of subject and background.

A segmenter takes frames uint8 `[n, H, W, 3]` of one batch and gives bool
`[n, H, W]`, True on the subject. Users name their own as `module:function`.
"""

from collections.abc import Callable

import numpy as np

from jaxvid.data import looks, plugins

Segmenter = Callable[[np.ndarray], np.ndarray]

# Of the shapes world: every background is dimmer, every object brighter.
_BRIGHT = 118
_LEAST = 0.005  # share of the picture that a subject covers
_SMALL = 48


def shapes(frames: np.ndarray) -> np.ndarray:
  """For the shapes world, whose objects outshine every background."""
  return frames.max(-1) >= _BRIGHT


def centre(frames: np.ndarray) -> np.ndarray:
  """A guess: what differs in colour from the rim of the picture.

  A pixel belongs to the subject where its distance from the mean colour of
  the outer tenth is more than twice the spread there, nearer the middle
  sooner. Empty where that is less than 0.5 % of the picture. Good for one
  thing before a plain background; use a segmenter of your own for the rest.
  """
  small = looks.strided(frames, _SMALL).astype(np.float32)
  count, height, width = small.shape[:3]
  y = np.abs((np.arange(height) + 0.5) / height * 2 - 1)[:, None]
  x = np.abs((np.arange(width) + 0.5) / width * 2 - 1)
  away = np.maximum(x, y)
  rim = small[:, away > 0.8]
  if not rim.shape[1]:
    return np.zeros(frames.shape[:3], bool)
  mean = rim.mean(1)[:, None, None]
  spread = np.linalg.norm(rim.std(1), axis=-1) + 8
  distance = np.linalg.norm(small - mean, axis=-1)
  mask = distance > 2 * spread[:, None, None] * (0.6 + 0.8 * away)
  mask &= mask.reshape(count, -1).mean(1)[:, None, None] > _LEAST
  rows = np.arange(frames.shape[1]) * height // frames.shape[1]
  columns = np.arange(frames.shape[2]) * width // frames.shape[2]
  return mask[:, rows][:, :, columns]


def none(frames: np.ndarray) -> np.ndarray:
  """No mask: the whole picture is subject and background alike."""
  return np.ones(frames.shape[:3], bool)


KNOWN: dict[str, Segmenter] = {
  'centre': centre,
  'shapes': shapes,
  'none': none,
}


def load(spec: str) -> Segmenter:
  """The segmenter that a setting names; see `plugins.load`."""
  return plugins.load(spec, KNOWN, 'segmenter')
