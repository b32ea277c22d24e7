"""Names the motion of a path by fitting the formulas of the shapes world."""

import functools
import itertools

import numpy as np

from jaxvid.data.shapes import scene as scene_lib

# Between slow and fast, in units/frame and in frames of a period.
SPEED_LIMIT = (scene_lib.SPEEDS['slow'] * scene_lib.SPEEDS['fast']) ** 0.5
PERIOD_LIMIT = (
  scene_lib.PERIODS['grow']['slow'] * scene_lib.PERIODS['grow']['fast']
) ** 0.5
WINDOW = 96  # Frames over which one motion is fitted.


@functools.lru_cache(maxsize=32)
def _grid(count: int) -> tuple[np.ndarray, ...]:
  """Periods and unit curves of bounces [P, S, F] and turns [P, F]."""
  time = np.arange(count)
  hops = np.geomspace(9, 64, 60)
  phases = np.arange(16) / 16
  angle = np.pi * (time / hops[:, None, None] + phases[:, None])
  turns = np.geomspace(20, 130, 48)
  return (
    hops,
    -np.abs(np.sin(angle)),
    turns,
    np.exp(2j * np.pi * time / turns[:, None]),
  )


def _regress(
  basis: np.ndarray, value: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Fits value [F] = c + a basis [..., F] (complex): (a, fit [..., F])."""
  weight = weight / weight.sum()
  middle = (basis * weight).sum(-1, keepdims=True)
  mean = (value * weight).sum()
  centred = basis - middle
  power = (np.abs(centred) ** 2 * weight).sum(-1)
  cross = (np.conj(centred) * (value - mean) * weight).sum(-1)
  slope = cross / np.maximum(power, 1e-9)
  return slope, mean + slope[..., None] * centred


def _misfit(fit: np.ndarray, path: np.ndarray, weight: np.ndarray):
  """Weighted mean distance; a few wild frames cannot dominate."""
  gap = np.minimum(np.abs(fit - path), 6.0)
  return (gap * weight).sum(-1) / weight.sum()


def fit_path(path: np.ndarray, weight: np.ndarray) -> tuple[str, float]:
  """The motion that explains a path best.

  Args:
    path: [F] complex x + iy in units, unwrapped, without the pan.
    weight: [F] trust in each frame, 0 where nothing shows.

  Returns:
    The motion ('still' for 'grow') and its speed in units/frame.
  """
  count = len(path)
  time = np.arange(count, dtype=np.float64)
  hops, bounces, turns, circles = _grid(count)
  still = np.full(count, (path * weight).sum() / weight.sum())
  options = [(_misfit(still, path, weight), 'still', 0.0)]
  for name, (x, y) in scene_lib.DIRECTIONS.items():
    direction = complex(x, y)
    along = (path / direction).real
    slope, fit = _regress(time, along, weight)
    if slope > 0.1:
      fit = still + direction * (fit - (still / direction).real)
      options.append((0.1 + _misfit(fit, path, weight), name, slope))
  height, fit = _regress(bounces, path.imag, weight)
  gap = _misfit(still.real + 1j * fit, path, weight)
  gap = np.where((height > 6) & (height < 30), gap, np.inf)
  best = np.unravel_index(gap.argmin(), gap.shape)
  speed = 2 * height[best] / hops[best[0]]
  options.append((0.2 + gap[best], 'bounce', speed))
  for circle in (circles, np.conj(circles)):
    size, fit = _regress(circle, path, weight)
    gap = _misfit(fit, path, weight)
    gap = np.where((np.abs(size) > 4) & (np.abs(size) < 20), gap, np.inf)
    best = int(gap.argmin())
    speed = 2 * np.pi * np.abs(size[best]) / turns[best]
    options.append((0.2 + gap[best], 'orbit', speed))
  _, motion, speed = min(options)
  if motion in scene_lib.DIRECTIONS:
    along = (path / complex(*scene_lib.DIRECTIONS[motion])).real
    speed = _median_slope(along, weight)
  return motion, float(speed)


def _median_slope(value: np.ndarray, weight: np.ndarray) -> float:
  """Speed of most of the clip: a late start does not slow it down."""
  lag = max(1, min(8, len(value) // 3))
  steps = (value[lag:] - value[:-lag]) / lag
  trust = (weight[lag:] >= 1) & (weight[:-lag] >= 1)
  return float(np.median(steps[trust] if trust.sum() > 3 else steps))


def fit_growth(radius: np.ndarray, weight: np.ndarray) -> tuple[bool, float]:
  """Whether a radius [F] swings as 'grow' does, and the period in frames."""
  turns, circles = _grid(len(radius))[2:]
  trust = weight > 0.5 * weight.max()
  low, middle, high = np.percentile(radius[trust], (5, 50, 95))
  best, period = 1.0, 0.0
  mean = (radius * weight).sum() / weight.sum()
  spread = (weight * (radius - mean) ** 2).sum() + 1e-9
  for circle, turn in zip(circles, turns, strict=True):
    basis = np.stack([np.ones_like(radius), circle.real, circle.imag], 1)
    scaled = basis * np.sqrt(weight)[:, None]
    fit = basis @ np.linalg.lstsq(scaled, radius * np.sqrt(weight))[0]
    left = (weight * (radius - fit) ** 2).sum() / spread
    if left < best:
      best, period = left, turn
  return bool(high - low > 0.12 * middle and best < 0.4), float(period)


def _windows(count: int) -> list[slice]:
  parts = max(1, round(count / WINDOW))
  edges = np.linspace(0, count, parts + 1).astype(int)
  return [slice(a, b) for a, b in itertools.pairwise(edges)]


def read_motion(
  path: np.ndarray, radius: np.ndarray, weight: np.ndarray
) -> tuple[str, str, float]:
  """Reads one object's motion; all in units and frames.

  Long clips are read window by window: the commonest motion is reported.

  Args:
    path: [F] complex x + iy, unwrapped, without the pan.
    radius: [F].
    weight: [F] trust in each frame, 0 to 1.

  Returns:
    Motion, 'slow' / 'fast' / 'none', and speed in units/frame (of the radius
    for 'grow').
  """
  parts = max(1, round(len(path) / WINDOW))
  edges = np.linspace(0, len(path), parts + 1).astype(int)
  results = []
  for start, end in itertools.pairwise(edges):
    part = slice(start, end)
    if weight[part].max() > 0:
      trust = weight[part] / weight[part].max()
      results.append(_read_window(path[part], radius[part], trust))
  kinds = [result[:2] for result in results]
  common = max(kinds, key=kinds.count)
  speeds = [result[2] for result in results if result[:2] == common]
  return *common, float(np.median(speeds))


def _read_window(path, radius, weight):
  motion, speed = fit_path(path, weight)
  if motion != 'still':
    return motion, 'fast' if speed > SPEED_LIMIT else 'slow', speed
  grows, turn = fit_growth(radius, weight)
  if not grows:
    return 'still', 'none', speed
  swing = np.ptp(np.percentile(radius[weight > 0.5], (2, 98)))
  return 'grow', 'fast' if turn < PERIOD_LIMIT else 'slow', 2 * swing / turn
