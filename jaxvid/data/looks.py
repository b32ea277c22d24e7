"""How pictures look, in simple numbers: no network, nothing learned."""

import numpy as np

from jaxvid.data.flow import luma


def strided(frames: np.ndarray, short: int) -> np.ndarray:
  """Every n-th row and column of `[..., H, W, C]`, about `short` rows.

  Colours of a picture need no more than that.
  """
  step = max(1, min(frames.shape[-3:-1]) // short)
  return frames[..., ::step, ::step, :]


def colourfulness(frames: np.ndarray) -> np.ndarray:
  """Hasler and Süsstrunk's colourfulness (2003) of each frame, `[n]`.

  About 0 for grey, 15 slightly, 45 rather and 100 extremely colourful.

  Args:
    frames: uint8 `[n, H, W, 3]`.
  """
  red, green, blue = np.moveaxis(frames.astype(np.float32), -1, 0)
  one, two = red - green, 0.5 * (red + green) - blue
  axes = (1, 2)
  spread = np.hypot(one.std(axes), two.std(axes))
  return spread + 0.3 * np.hypot(one.mean(axes), two.mean(axes))


def appeal(frames: np.ndarray) -> np.ndarray:
  """A light stand-in for a learned aesthetic score, 0..1, `[n]`.

  The mean of three terms, each 0..1: colourfulness / 100, contrast (standard
  deviation of luma / 64) and exposure (1 - |mean luma - 128| / 128). It knows
  nothing of content or composition; it does fall when a stream fades, burns
  out or turns grey, which is what long videos do.

  Args:
    frames: uint8 `[n, H, W, 3]`.
  """
  frames = strided(frames, 96)
  y = luma(frames)
  terms = (
    np.minimum(colourfulness(frames) / 100, 1),
    np.minimum(y.std((1, 2)) / 64, 1),
    1 - np.abs(y.mean((1, 2)) - 128) / 128,
  )
  return np.mean(terms, 0)
