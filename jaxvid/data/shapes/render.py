"""Draws scenes and tells the exact truth about them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import Object, Scene, SceneSettings

SQRT3 = 3**0.5
# Extent of each shape per unit of nominal radius: areas stay comparable.
SQUARE, TRIANGLE, RING, CROSS = 0.9, 1.4, (0.52, 1.1), (0.38, 1.1)
EXTENT = {
  'circle': 1.0,
  'square': SQUARE,
  'triangle': TRIANGLE,
  'ring': RING[1],
  'cross': CROSS[1],
}


@dataclasses.dataclass(frozen=True)
class GroundTruth:
  """What is where, N objects over F frames, pixels and frames.

  Attributes:
    masks: [F, N, H, W] bool, the visible pixels of each object (disjoint).
    full: [F, N, H, W] bool, its pixels whether hidden or not.
    positions: [F, N, 2] centres (x, y), wrapped.
    velocity: [F, N, 2] own motion (x, y) in px/frame, without the pan.
    speed: [F, N] length of `velocity`.
    radius: [F, N] nominal radius.
    camera: [F, 2] shift (x, y) of the background by the pan since frame 0.
  """

  masks: np.ndarray
  full: np.ndarray
  positions: np.ndarray
  velocity: np.ndarray
  speed: np.ndarray
  radius: np.ndarray
  camera: np.ndarray


def frame_indices(frames: int | Sequence[int] | np.ndarray) -> np.ndarray:
  """A count or explicit indices -> indices [F] as float64."""
  if isinstance(frames, int | np.integer):
    return np.arange(frames, dtype=np.float64)
  return np.asarray(frames, np.float64)


def distance(
  shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray
) -> np.ndarray:
  """Signed distance to the outline, negative inside; all broadcast.

  The inside and the straight edges are exact, which antialiasing needs;
  beyond corners it is a lower bound.
  """
  if shape == 'circle':
    return np.sqrt(x * x + y * y) - radius
  if shape == 'ring':
    middle, half = (RING[1] + RING[0]) / 2, (RING[1] - RING[0]) / 2
    centre = np.sqrt(x * x + y * y)
    return np.abs(centre - middle * radius) - half * radius
  if shape == 'square':
    return np.maximum(np.abs(x), np.abs(y)) - SQUARE * radius
  if shape == 'cross':
    x, y = np.abs(x), np.abs(y)
    thick, long = CROSS[0] * radius, CROSS[1] * radius
    arms = np.minimum(
      np.maximum(x - long, y - thick), np.maximum(x - thick, y - long)
    )
    return arms
  inner = TRIANGLE * radius / 2  # The inradius is half the circumradius.
  sides = np.abs(x) * (SQRT3 / 2) - y / 2
  return np.maximum(sides, y) - inner


def patch(
  obj: Object, centre: np.ndarray, radius: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Coverage of one object where it may be: a window on the torus.

  Args:
    obj: the object.
    centre: [F, 2] (x, y) in pixels.
    radius: [F] in pixels.
    height: of the picture.
    width: of the picture.

  Returns:
    coverage [F, h, w] float32 in [0, 1], rows [F, h, 1], columns [F, 1, w].
  """
  reach = int(np.ceil(EXTENT[obj.shape] * radius.max())) + 1
  axes = []
  for axis, size in ((1, height), (0, width)):
    count = min(2 * reach + 1, size)
    first = np.floor(centre[:, axis]).astype(np.int64) - count // 2
    index = first[:, None] + np.arange(count)
    delta = (index + 0.5 - centre[:, axis, None]).astype(np.float32)
    axes.append((np.mod(index, size), delta))
  (rows, y), (columns, x) = axes
  edge = distance(
    obj.shape,
    x[:, None, :],
    y[:, :, None],
    radius.astype(np.float32)[:, None, None],
  )
  coverage = np.clip(0.5 - edge, 0.0, 1.0)
  return coverage, rows[:, :, None], columns[:, None, :]


def background(
  scene: Scene, frames: np.ndarray, height: int, width: int
) -> np.ndarray:
  """The picture without objects: [F or 1, H, W, 3] float32 in 0..255.

  Without a pan it is the same in every frame, and one is returned.
  """
  unit = min(height, width) / scene_lib.SHORT_SIDE
  tone = np.array(scene_lib.TONES[scene.background.tone], np.float32)
  shift = scene_lib.camera(scene, frames if scene.pan != 'none' else [0])
  shift = shift + np.array(scene.background.offset)
  world = scene_lib.world_size(height, width)
  x = ((np.arange(width) + 0.5) / unit - shift[:, :1]) / world[0]
  y = ((np.arange(height) + 0.5) / unit - shift[:, 1:]) / world[1]
  x, y = (x * 2 * np.pi)[:, None, :], (y * 2 * np.pi)[:, :, None]
  if scene.background.shading == 'striped':
    wave = np.cos(max(1, round(world[0] / scene_lib.STRIPE)) * x) + 0 * y
  elif scene.background.shading == 'shaded':
    wave = 0.5 * (np.cos(x) + np.cos(y))
  else:
    wave = 0 * x + 0 * y
  light = (1 + 0.35 * wave).astype(np.float32)
  return light[..., None] * tone


def render(
  scene: Scene,
  frames: int | Sequence[int] | np.ndarray,
  height: int = 64,
  width: int = 64,
) -> np.ndarray:
  """Draws frames 0..n-1, or the given indices: uint8 [F, H, W, 3]."""
  index = frame_indices(frames)
  unit = min(height, width) / scene_lib.SHORT_SIDE
  picture = background(scene, index, height, width)
  shape = (len(index), height, width, 3)
  picture = np.rint(np.broadcast_to(picture, shape)).astype(np.uint8)
  centres = scene_lib.positions(scene, index, height, width) * unit
  batch = np.arange(len(index))[:, None, None]
  for i, obj in enumerate(scene.objects):
    size = scene_lib.radius(obj, index) * unit
    cover, rows, columns = patch(obj, centres[:, i], size, height, width)
    colour = np.array(scene_lib.COLOURS[obj.colour], np.float32)
    below = picture[batch, rows, columns]
    mixed = below + cover[..., None] * (colour - below)
    picture[batch, rows, columns] = np.rint(mixed).astype(np.uint8)
  return picture


def full_masks(
  scene: Scene, frames: np.ndarray, height: int, width: int
) -> np.ndarray:
  """Pixels of each object, hidden or not: bool [F, N, H, W]."""
  unit = min(height, width) / scene_lib.SHORT_SIDE
  count = len(scene.objects)
  full = np.zeros((len(frames), count, height, width), bool)
  centres = scene_lib.positions(scene, frames, height, width) * unit
  batch = np.arange(len(frames))[:, None, None]
  for i, obj in enumerate(scene.objects):
    size = scene_lib.radius(obj, frames) * unit
    cover, rows, columns = patch(obj, centres[:, i], size, height, width)
    full[batch, i, rows, columns] = cover >= 0.5
  return full


def visible_masks(full: np.ndarray) -> np.ndarray:
  """Takes what the objects in front hide out of full [F, N, H, W]."""
  visible = full.copy()
  for i in range(full.shape[1] - 1):
    visible[:, i] &= ~full[:, i + 1 :].any(1)
  return visible


def ground_truth(
  scene: Scene,
  frames: int | Sequence[int] | np.ndarray,
  height: int = 64,
  width: int = 64,
) -> GroundTruth:
  """The exact truth about `render(scene, frames, height, width)`."""
  index = frame_indices(frames)
  unit = min(height, width) / scene_lib.SHORT_SIDE
  full = full_masks(scene, index, height, width)
  step = [
    scene_lib.displacement(obj, index + 1) - scene_lib.displacement(obj, index)
    for obj in scene.objects
  ]
  velocity = np.stack(step, 1) * unit
  size = [scene_lib.radius(obj, index) for obj in scene.objects]
  return GroundTruth(
    masks=visible_masks(full),
    full=full,
    positions=scene_lib.positions(scene, index, height, width) * unit,
    velocity=velocity,
    speed=np.linalg.norm(velocity, axis=-1),
    radius=np.stack(size, 1) * unit,
    camera=scene_lib.camera(scene, index) * unit,
  )


def keeps_clear(scene: Scene, settings: SceneSettings) -> bool:
  """Whether no object ever hides too much of another over the horizon.

  Measured on masks; frames in which no two objects can touch are skipped.
  Objects that come nearly concentric are refused without looking.
  """
  size = np.array(scene_lib.world_size(settings.height, settings.width))
  index = np.arange(settings.horizon, dtype=np.float64)
  centres = scene_lib.positions(scene, index, settings.height, settings.width)
  radii = np.stack([scene_lib.radius(o, index) for o in scene.objects], 1)
  reach = radii * [EXTENT[o.shape] for o in scene.objects]
  near = np.zeros(len(index), bool)
  for i in range(len(scene.objects)):
    for j in range(i):
      gap = np.abs(centres[:, i] - centres[:, j])
      gap = np.linalg.norm(np.minimum(gap, size - gap), axis=-1)
      if (gap < 0.3 * np.minimum(radii[:, i], radii[:, j])).any():
        return False
      near |= gap < reach[:, i] + reach[:, j]
  if not near.any():
    return True
  full = full_masks(scene, index[near], settings.height, settings.width)
  return bool(hidden(full).max() <= scene_lib.MAX_HIDDEN)


def hidden(full: np.ndarray) -> np.ndarray:
  """Hidden fraction [F, N] of each object, from full [F, N, H, W]."""
  seen = visible_masks(full).sum((2, 3))
  return 1 - seen / np.maximum(full.sum((2, 3)), 1)
