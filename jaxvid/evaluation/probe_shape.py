"""Names the shape of a track and sees through what hides part of it."""

import dataclasses

import numpy as np

from jaxvid.data.shapes import render as render_lib
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.evaluation import probe_tracks
from jaxvid.evaluation.probe_tracks import Track

# Pixels of a shape of nominal radius 1.
AREAS = {
  'circle': np.pi,
  'square': 4 * render_lib.SQUARE**2,
  'triangle': 3 * 3**0.5 / 4 * render_lib.TRIANGLE**2,
  'ring': np.pi * (render_lib.RING[1] ** 2 - render_lib.RING[0] ** 2),
  'cross': 8 * render_lib.CROSS[0] * render_lib.CROSS[1]
  - 4 * render_lib.CROSS[0] ** 2,
}
MOST = 9  # Frames that decide on the shape.
REFINED = 27  # Partly hidden frames that are measured again.
GOOD_FIT = 0.2


@dataclasses.dataclass(frozen=True)
class Views:
  """K windows around an object.

  alpha [K, h, w] its share of the pixels; valid [K, h, w] 0 where something
  else is in front; x [K, 1, w] and y [K, h, 1] from the estimated centre.
  """

  alpha: np.ndarray
  valid: np.ndarray
  x: np.ndarray
  y: np.ndarray


def look(track: Track, index: np.ndarray) -> Views:
  """Cuts out the windows of some frames, on the torus."""
  _, height, width = track.alpha.shape
  reach = int(2.2 * np.sqrt(np.nanmax(track.area[index]) / np.pi)) + 3
  axes = []
  for axis, size in ((1, height), (0, width)):
    middle = track.centre[index, axis]
    count = min(2 * reach + 1, size)
    place = np.floor(middle).astype(int)[:, None] - count // 2
    place = place + np.arange(count)
    axes.append((place % size, place + 0.5 - middle[:, None]))
  (rows, y), (columns, x) = axes
  rows, columns = rows[:, :, None], columns[:, None, :]
  hidden = probe_tracks.dilate(track.others[index], 1)
  batch = np.arange(len(index))[:, None, None]
  return Views(
    alpha=track.alpha[index[:, None, None], rows, columns],
    valid=(~hidden[batch, rows, columns]).astype(np.float32),
    x=x[:, None, :].astype(np.float32),
    y=y[:, :, None].astype(np.float32),
  )


def draw(
  shape: str, views: Views, pose: np.ndarray, softness: float
) -> np.ndarray:
  """The shape at pose [K, 3] (x, y, radius), edges `softness` px wide."""
  x, y, radius = (pose[:, i, None, None] for i in range(3))
  edge = render_lib.distance(shape, views.x - x, views.y - y, radius)
  return np.clip(0.5 - edge / softness, 0, 1)


def misfit(shape: str, views: Views, pose: np.ndarray) -> np.ndarray:
  """Share [K] of the visible pixels that differ, 0 to 1."""
  drawn = draw(shape, views, pose, 1.0)
  gap = (np.abs(views.alpha - drawn) * views.valid).sum((1, 2))
  total = ((views.alpha + drawn) * views.valid).sum((1, 2))
  return gap / np.maximum(total, 1e-6)


def fit_pose(shape: str, views: Views, area: np.ndarray) -> np.ndarray:
  """Fits (x, y, radius) [K, 3] to the visible part alone.

  Damped Gauss-Newton from the visible centre and area; edges start wide, to
  be felt from afar, and sharpen.
  """
  zero = np.zeros_like(area)
  pose = np.stack([zero, zero, np.sqrt(area / AREAS[shape])], 1)
  pose = pose.astype(np.float32)
  least, most = 0.8 * pose[:, 2], 1.8 * pose[:, 2]
  for softness in (6.0, 6.0, 6.0, 3.0, 3.0, 3.0, 1.5, 1.5):
    now = draw(shape, views, pose, softness)
    slopes = []
    for i in range(3):
      step = np.zeros_like(pose)
      step[:, i] = 0.25
      slopes.append((draw(shape, views, pose + step, softness) - now) * 4)
    slope = np.stack(slopes, 1) * views.valid[:, None]
    slope = slope.reshape(len(pose), 3, -1)
    left = ((views.alpha - now) * views.valid).reshape(len(pose), -1, 1)
    gram = slope @ slope.transpose(0, 2, 1) + 0.3 * np.eye(3)
    move = np.linalg.solve(gram, slope @ left)[..., 0]
    pose = pose + np.clip(move, -2, 2).astype(np.float32)
    pose[:, 2] = np.clip(pose[:, 2], least, most)
  return pose


def _spread(index: np.ndarray, most: int) -> np.ndarray:
  """At most `most` of the entries, evenly."""
  chosen = np.linspace(0, len(index) - 1, min(most, len(index)))
  return index[np.unique(chosen.astype(int))]


def read_shape(track: Track) -> str:
  """The shape whose drawing fits best, over clear frames if there are any."""
  index = np.flatnonzero(track.clear)
  hidden = len(index) < 3
  if hidden:
    index = np.flatnonzero(np.isfinite(track.area))
  index = _spread(index, MOST)
  views, area = look(track, index), track.area[index]
  errors = {}
  for shape in scene_lib.SHAPES:
    pose = np.zeros((len(index), 3), np.float32)
    pose[:, 2] = np.sqrt(area / AREAS[shape])
    if hidden:
      pose = fit_pose(shape, views, area)
    errors[shape] = float(np.median(misfit(shape, views, pose)))
  return min(errors, key=errors.__getitem__)


def measure(
  track: Track, shape: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Centres and radii, corrected where other objects hide a part.

  Returns:
    centre [F, 2] px, radius [F] px, trust [F] in 0..1 (1 in clear frames and
    where the visible part fits well).
  """
  _, height, width = track.alpha.shape
  centre = track.centre.copy()
  radius = np.sqrt(track.area / AREAS[shape])
  present = np.isfinite(track.area)
  trust = np.where(track.clear, 1.0, np.where(present, 0.03, 0.0))
  index = _spread(np.flatnonzero(present & ~track.clear), REFINED)
  if len(index):
    views = look(track, index)
    pose = fit_pose(shape, views, track.area[index])
    good = misfit(shape, views, pose) < GOOD_FIT
    better = index[good]
    moved = centre[better] + pose[good, :2]
    centre[better] = np.mod(moved, [width, height])
    radius[better] = pose[good, 2]
    trust[better] = 1.0
  return centre, radius, trust
