"""Finds the objects of shapes-world frames and follows them on the torus."""

import dataclasses

import numpy as np
from scipy import ndimage

from jaxvid.data.shapes import scene as scene_lib

# Every background is dimmer than this, every object brighter.
BRIGHT = 118
# Least core area of an object in square units: half of the smallest shape
# may be hidden, and its rim does not count.
LEAST = 20.0
# An object shows in at least this part of the frames.
PRESENT = 0.3
PALETTE = np.array(list(scene_lib.COLOURS.values()), np.float32)


@dataclasses.dataclass(frozen=True)
class Backdrop:
  """The background: colour [3], tone, shading and camera pan.

  `drift` is the shift in units/frame that the pan gives the picture.
  """

  colour: np.ndarray
  tone: str
  shading: str
  pan: str
  drift: float


@dataclasses.dataclass(frozen=True)
class Track:
  """One colour over F frames; pixels. Absent frames are not-a-number.

  Attributes:
    colour: its name.
    blobs: number of separate patches of it (typical frame).
    alpha: [F, H, W] float32, its share of every pixel.
    others: [F, H, W] bool, where something else is in front or beside.
    centre: [F, 2] (x, y), wrapped.
    area: [F].
    clear: [F] bool, present and not touching anything else.
  """

  colour: str
  blobs: int
  alpha: np.ndarray
  others: np.ndarray
  centre: np.ndarray
  area: np.ndarray
  clear: np.ndarray


def dilate(mask: np.ndarray, steps: int) -> np.ndarray:
  """Grows mask [F, H, W] by `steps` pixels on the torus."""
  for _ in range(steps):
    mask = mask | np.roll(mask, 1, 1) | np.roll(mask, -1, 1)
    mask = mask | np.roll(mask, 1, 2) | np.roll(mask, -1, 2)
  return mask


def label_colours(
  frames: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Names the colour of every bright pixel.

  The nearest colour is the one in whose direction from the background the
  pixel lies, so that faded and blurred pixels keep their name.

  Args:
    frames: [F, H, W, 3] uint8.

  Returns:
    labels [F, H, W] uint8, 0 the background and i + 1 colour i; cores, the
    same where all four neighbours agree; the background's colour [3].
  """
  bright = frames.max(-1) >= BRIGHT
  some = slice(None, None, max(1, len(frames) // 8))
  dim = frames[some][~bright[some]]
  ground = np.median(dim, 0) if len(dim) else np.zeros(3)
  ground = ground.astype(np.float32)
  rays = PALETTE - ground
  rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
  pixels = frames[bright] - ground
  labels = np.zeros(bright.shape, np.uint8)
  labels[bright] = 1 + (pixels @ rays.T).argmax(-1)
  same = np.ones_like(bright)
  for axis in (1, 2):
    for step in (1, -1):
      same &= labels == np.roll(labels, step, axis)
  return labels, np.where(same, labels, 0).astype(np.uint8), ground


def count_blobs(
  core: np.ndarray, between: np.ndarray, least: float
) -> np.ndarray:
  """Patches per frame [F] with at least `least` pixels of core.

  Args:
    core: [F, H, W] bool, of one colour.
    between: [F, H, W] bool, what may hide the middle of an object.
    least: pixels.
  """
  within = np.zeros((3, 3, 3), bool)
  within[1] = True
  patches = np.zeros(core.shape, np.int32)
  ndimage.label(core | between, structure=within, output=patches)
  edges = [
    np.stack([patches[:, 0].ravel(), patches[:, -1].ravel()]),
    np.stack([patches[:, :, 0].ravel(), patches[:, :, -1].ravel()]),
  ]
  edges = np.concatenate(edges, 1)
  edges = edges[:, (edges > 0).all(0)]
  owner = np.arange(patches.max() + 1)
  while edges.size:  # Patches that meet across the border become one.
    low = owner[edges].min(0)
    joined = owner.copy()
    for side in edges:
      np.minimum.at(joined, side, low)
    if (joined == owner).all():
      break
    owner = joined
  frame = np.broadcast_to(np.arange(len(core))[:, None, None], core.shape)[core]
  flat = frame * len(owner) + owner[patches[core]]
  size = np.bincount(flat, minlength=len(core) * len(owner))
  return (size.reshape(len(core), -1) >= least).sum(1)


def _centroid(alpha: np.ndarray, axis: int) -> np.ndarray:
  """Centre [F] along axis 1 or 2 of alpha [F, H, W], on the torus."""
  size = alpha.shape[axis]
  mass = alpha.sum(3 - axis)
  place = np.arange(size) + 0.5
  turn = 2 * np.pi * place / size
  angle = np.arctan2(mass @ np.sin(turn), mass @ np.cos(turn))
  centre = angle * size / (2 * np.pi)
  delta = np.mod(place - centre[:, None] + size / 2, size) - size / 2
  total = np.maximum(mass.sum(1), 1e-6)
  return np.mod(centre + (mass * delta).sum(1) / total, size)


def _near(alpha: np.ndarray, centre: np.ndarray) -> np.ndarray:
  """Keeps what lies around centre [F, 2]; drops stray specks far away."""
  reach = 1.9 * np.sqrt(alpha.sum((1, 2)) / np.pi) + 2
  keep = []
  for axis, coordinate in ((1, centre[:, 1]), (2, centre[:, 0])):
    size = alpha.shape[axis]
    place = np.arange(size) + 0.5
    delta = np.mod(place - coordinate[:, None] + size / 2, size) - size / 2
    keep.append(np.abs(delta) < reach[:, None])
  return alpha * (keep[0][:, :, None] & keep[1][:, None, :])


def _track(
  name: str,
  frames: np.ndarray,
  labels: np.ndarray,
  cores: np.ndarray,
  found: list[int],
  ground: np.ndarray,
) -> Track:
  code = 1 + list(scene_lib.COLOURS).index(name)
  unit = min(labels.shape[1:]) / scene_lib.SHORT_SIDE
  core = cores == code
  rivals = [label for label in found if label != code]
  others = np.isin(labels, rivals) if rivals else np.zeros_like(core)
  ray = np.median(frames[core], 0) - ground
  share = (frames - ground) @ (ray / (ray @ ray)).astype(np.float32)
  around = dilate(core, 3)
  alpha = np.clip(share, 0, 1) * (around & ~others)
  centre = np.stack([_centroid(alpha, 2), _centroid(alpha, 1)], -1)
  for _ in range(2):
    alpha = _near(alpha, centre)
    centre = np.stack([_centroid(alpha, 2), _centroid(alpha, 1)], -1)
  area = alpha.sum((1, 2))
  present = core.sum((1, 2)) >= LEAST * unit**2
  some = slice(None, None, max(1, len(frames) // 16))
  # Wide enough to bridge the mixed pixels at the edge of what hides it.
  between = dilate(others[some], 3)
  blobs = count_blobs(core[some], between, LEAST * unit**2)
  blobs = blobs[present[some]]
  return Track(
    colour=name,
    blobs=max(1, int(np.median(blobs))) if len(blobs) else 1,
    alpha=alpha,
    others=others,
    centre=np.where(present[:, None], centre, np.nan),
    area=np.where(present, area, np.nan),
    clear=present & ~(around & others).any((1, 2)),
  )


def _shading_basis(height: int, width: int) -> np.ndarray:
  """Waves [7, H, W]: 1, stripes, one turn across, one turn down."""
  world = scene_lib.world_size(height, width)
  x = 2 * np.pi * (np.arange(width) + 0.5)[None, :] / width
  y = 2 * np.pi * (np.arange(height) + 0.5)[:, None] / height
  stripes = max(1, round(world[0] / scene_lib.STRIPE))
  waves = [0 * x, np.cos(stripes * x), np.sin(stripes * x)]
  waves += [np.cos(x), np.sin(x), np.cos(y), np.sin(y)]
  waves = np.stack([wave + 0 * x + 0 * y for wave in waves])
  waves[0] = 1
  return waves.astype(np.float32)


def read_backdrop(
  frames: np.ndarray, labels: np.ndarray, cores: np.ndarray, ground: np.ndarray
) -> Backdrop:
  """Fits the known shadings to what no object covers."""
  count, height, width = labels.shape
  step = max(1, min(8, count // 8))
  index = np.arange(0, count, step)
  waves = _shading_basis(height, width).reshape(7, -1)
  free = ~(dilate(cores[index] > 0, 4) | (labels[index] > 0))
  free = free.reshape(len(index), -1).astype(np.float32)
  light = frames[index].reshape(len(index), -1, 3) @ ground
  light = light / max(float(ground @ ground), 1.0)
  gram = np.einsum('fp,ip,jp->fij', free, waves, waves, optimize=True)
  right = np.einsum('fp,ip->fi', free * light, waves)
  fit = np.linalg.solve(gram + np.eye(7), right[..., None])[..., 0]
  striped, across, down = (
    np.median(np.hypot(fit[:, i], fit[:, i + 1])) for i in (1, 3, 5)
  )
  shading, turn, drift = 'plain', None, 0.0
  if striped > 0.12:
    shading, turn = 'striped', np.arctan2(fit[:, 2], fit[:, 1])
    length = max(
      1, round(scene_lib.world_size(height, width)[0] / scene_lib.STRIPE)
    )
  elif across + down > 0.15:
    shading, turn, length = 'shaded', np.arctan2(fit[:, 4], fit[:, 3]), 1
  if turn is not None and len(index) > 1:
    world = scene_lib.world_size(height, width)[0]
    shift = np.unwrap(turn) * world / (2 * np.pi * length)
    drift = float(np.polyfit(index, shift, 1)[0])
  # The picture drifts against the camera.
  pan = 'none'
  if abs(drift) > scene_lib.PAN_SPEED / 2:
    pan = 'left' if drift > 0 else 'right'
  tones = np.array(list(scene_lib.TONES.values()))
  nearest = int(np.linalg.norm(tones - ground, axis=-1).argmin())
  tone = list(scene_lib.TONES)[nearest]
  drift = drift if pan != 'none' else 0.0
  return Backdrop(ground, tone, shading, pan, drift)


def read_tracks(frames: np.ndarray) -> tuple[list[Track], Backdrop]:
  """Finds every colour that shows and follows it: frames [F, H, W, 3]."""
  labels, cores, ground = label_colours(frames)
  unit = min(frames.shape[1:3]) / scene_lib.SHORT_SIDE
  names = list(scene_lib.COLOURS)
  found = []
  for code in range(1, len(names) + 1):
    area = (cores == code).sum((1, 2))
    if (area >= LEAST * unit**2).mean() >= PRESENT:
      found.append(code)
  pixels = frames.astype(np.float32)
  backdrop = read_backdrop(pixels, labels, cores, ground)
  tracks = [
    _track(names[code - 1], pixels, labels, cores, found, ground)
    for code in found
  ]
  return tracks, backdrop
