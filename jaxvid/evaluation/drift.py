"""Drift: simple measures of a video, second by second.

No network and no reference: a stream that keeps its colours, its edges and
its pace has flat curves.
"""

import numpy as np

FPS = 16
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


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
  y = frames.astype(np.float32) @ _LUMA
  inner = y[:, 1:-1, 1:-1]
  laplacian = (
    y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
  ) - 4 * inner
  return laplacian.var((1, 2))


def change(frames: np.ndarray) -> np.ndarray:
  """Mean absolute luma difference to the frame before; 0 for frame 0."""
  y = frames.astype(np.float32) @ _LUMA
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
