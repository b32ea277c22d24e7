"""Drift: simple measures of a video, second by second.

No network and no reference: a stream that keeps its colours, its edges and
its pace has flat curves.
"""

import numpy as np

from jaxvid.data.flow import luma

FPS = 16


def saturation(frames: np.ndarray) -> np.ndarray:
  """Mean HSV saturation of each frame, 0..1.

  Args:
    frames: uint8 `[F, H, W, 3]`.
  """
  video = frames.astype(np.float32)
  high, low = video.max(-1), video.min(-1)
  return ((high - low) / np.maximum(high, 1)).mean((1, 2))


def sharpness(frames: np.ndarray) -> np.ndarray:
  """Variance of the Laplacian of luma of each frame, in grey levels squared.

  Args:
    frames: uint8 `[F, H, W, 3]`.
  """
  # One frame at a time stays in the processor's cache.
  return np.array([laplacian_variance(luma(x)) for x in frames], np.float32)


def laplacian_variance(y: np.ndarray) -> float:
  """The same of one picture's luma `[H, W]`; 0 below 3 pixels a side."""
  if min(y.shape) < 3:
    return 0.0
  inner = y[1:-1, 1:-1]
  laplacian = y[:-2, 1:-1] + y[2:, 1:-1]
  laplacian += y[1:-1, :-2]
  laplacian += y[1:-1, 2:]
  laplacian -= 4 * inner
  return float(laplacian.var())


def change(frames: np.ndarray) -> np.ndarray:
  """Mean absolute luma difference to the frame before; 0 for frame 0."""
  y = luma(frames)
  steps = np.abs(np.diff(y, axis=0)).mean((1, 2))
  return np.concatenate([np.zeros(1, np.float32), steps])


def per_second(values: np.ndarray, fps: int = FPS) -> np.ndarray:
  """Means over whole seconds of a per-frame curve; a rest is left out."""
  seconds = len(values) // fps
  return values[: seconds * fps].reshape(seconds, fps).mean(1)


def curves(frames: np.ndarray, fps: int = FPS) -> dict[str, np.ndarray]:
  """All curves of a video, one value per second.

  Args:
    frames: uint8 `[F, H, W, 3]`.
    fps: frames per second.
  """
  measures = {
    'saturation': saturation,
    'sharpness': sharpness,
    'change': change,
  }
  return {
    name: per_second(measure(frames), fps) for name, measure in measures.items()
  }
