"""Scenes of the shapes world, as plain data and closed formulas.

Lengths are in *units*: the short side of the picture is 64 units, whatever
its size in pixels. The world is a torus as large as the picture. Everything
is a function of the frame index alone, so any frame can be drawn by itself.
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvid.errors import UserError

SHORT_SIDE = 64.0
SHAPES = ('circle', 'square', 'triangle', 'ring', 'cross')
COLOURS = {
  'red': (230, 40, 40),
  'orange': (245, 135, 25),
  'yellow': (250, 228, 60),
  'green': (50, 190, 70),
  'cyan': (50, 215, 225),
  'blue': (50, 95, 250),
  'purple': (175, 60, 220),
  'white': (245, 245, 245),
}
SIZES = {'small': 8.0, 'medium': 11.0, 'large': 14.0}
DIRECTIONS = {
  'left': (-1.0, 0.0),
  'right': (1.0, 0.0),
  'up': (0.0, -1.0),
  'down': (0.0, 1.0),
}
MOTIONS = (*DIRECTIONS, 'bounce', 'orbit', 'grow', 'still')
# Units per frame: one turn round a square picture takes 80 or 32 frames.
SPEEDS = {'slow': 0.8, 'fast': 2.0}
TONES = {
  'dark': (20, 20, 24),
  'grey': (68, 68, 72),
  'navy': (20, 26, 64),
  'brown': (58, 38, 24),
}
SHADINGS = ('plain', 'shaded', 'striped')
# What may differ from shot to shot of a script.
CHANGES = ('colour', 'shape', 'size', 'motion', 'speed', 'tone', 'shading')
PANS = ('none', 'left', 'right')
PAN_SPEED = 0.4
STRIPE = 16.0  # Units from stripe to stripe, about.

# Frames until a periodic motion repeats.
PERIODS = {
  'bounce': {'slow': 40.0, 'fast': 16.0},
  'orbit': {'slow': 80.0, 'fast': 32.0},
  'grow': {'slow': 80.0, 'fast': 32.0},
}
BOUNCE_HEIGHT = 16.0
# Makes the speed along the circle that of the straight motions.
ORBIT_RADIUS = SPEEDS['slow'] * PERIODS['orbit']['slow'] / (2 * math.pi)
GROWTH = 0.5
MAX_HIDDEN = 0.5


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
  if value not in allowed:
    raise UserError(f'{name} {value!r} is not one of {", ".join(allowed)}.')


@dataclasses.dataclass(frozen=True)
class Object:
  """One moving shape.

  `start` is its centre at frame 0 as fractions (x, y) of the picture, and
  `phase` how many frames into its periodic motion it then is. A still object
  has speed 'none'.
  """

  shape: str
  colour: str
  size: str
  motion: str
  speed: str
  start: tuple[float, float] = (0.5, 0.5)
  phase: float = 0.0

  def __post_init__(self):
    _check('shape', self.shape, SHAPES)
    _check('colour', self.colour, tuple(COLOURS))
    _check('size', self.size, tuple(SIZES))
    _check('motion', self.motion, MOTIONS)
    speeds = ('none',) if self.motion == 'still' else tuple(SPEEDS)
    _check(f'speed of motion {self.motion!r}:', self.speed, speeds)


@dataclasses.dataclass(frozen=True)
class Background:
  """A dim tone, plain or softly shaded; `offset` (x, y) in units."""

  tone: str = 'dark'
  shading: str = 'plain'
  offset: tuple[float, float] = (0.0, 0.0)

  def __post_init__(self):
    _check('background tone', self.tone, tuple(TONES))
    _check('background shading', self.shading, SHADINGS)


@dataclasses.dataclass(frozen=True)
class Scene:
  """Objects from back to front, a background and a camera pan."""

  objects: tuple[Object, ...]
  background: Background = Background()
  pan: str = 'none'

  def __post_init__(self):
    _check('camera pan', self.pan, PANS)
    if not self.objects:
      raise UserError('a scene needs at least one object.')


@dataclasses.dataclass(frozen=True)
class SceneSettings:
  """What `sample_scene` may draw.

  `counts` are the weights of 1, 2, 3, ... objects. The limit on hiding is
  checked over `horizon` frames; 160 frames are a whole period of every scene
  in a square picture, hence for ever. `split` is 'train' (without the held-out
  combinations of `is_heldout`), 'heldout' (only those) or 'all'. What is named
  twice is drawn twice as often; `changes` are those of scripts.
  """

  counts: tuple[float, ...] = (0.6, 0.25, 0.15)
  shapes: tuple[str, ...] = SHAPES
  colours: tuple[str, ...] = tuple(COLOURS)
  sizes: tuple[str, ...] = tuple(SIZES)
  motions: tuple[str, ...] = MOTIONS
  speeds: tuple[str, ...] = tuple(SPEEDS)
  tones: tuple[str, ...] = tuple(TONES)
  shadings: tuple[str, ...] = SHADINGS
  changes: tuple[str, ...] = CHANGES
  pan_probability: float = 0.1
  height: int = 64
  width: int = 64
  horizon: int = 160
  split: str = 'train'

  def __post_init__(self):
    _check('split', self.split, ('train', 'heldout', 'all'))
    if not self.changes:
      raise UserError(f'changes must name some of {", ".join(CHANGES)}.')
    for name in self.changes:
      _check('change', name, CHANGES)

  def content(self, scripts: bool) -> dict[str, Any]:
    """What decides what a cache of scenes, or of scripts, shows.

    The usual `changes` are left out: there are caches older than that setting.
    """
    settings = dataclasses.asdict(self)
    if not scripts or tuple(self.changes) == CHANGES:
      del settings['changes']
    return settings


def is_heldout(shape: str, colour: str, motion: str, speed: str) -> bool:
  """Whether this combination is kept from training: about one in ten."""
  name = f'{colour} {shape} {motion} {speed}'
  return zlib.crc32(name.encode()) % 10 == 0


def nominal_speed(obj: Object) -> float:
  """Mean speed in units/frame; of the radius for 'grow', 0 for 'still'."""
  if obj.motion == 'still':
    return 0.0
  if obj.motion == 'grow':
    return 2 * GROWTH * SIZES[obj.size] / PERIODS['grow'][obj.speed]
  return SPEEDS[obj.speed]


def world_size(height: int, width: int) -> tuple[float, float]:
  """Returns the (width, height) of the torus in units."""
  unit = min(height, width) / SHORT_SIDE
  return width / unit, height / unit


def _offset(obj: Object, frames: np.ndarray) -> np.ndarray:
  """Displacement [F, 2] in units of the motion since its own beginning."""
  zero = np.zeros_like(frames)
  if obj.motion in DIRECTIONS:
    direction = np.array(DIRECTIONS[obj.motion])
    return SPEEDS[obj.speed] * frames[:, None] * direction
  if obj.motion == 'bounce':
    turn = np.pi * frames / PERIODS['bounce'][obj.speed]
    return np.stack([zero, -BOUNCE_HEIGHT * np.abs(np.sin(turn))], -1)
  if obj.motion == 'orbit':
    turn = 2 * np.pi * frames / PERIODS['orbit'][obj.speed]
    return ORBIT_RADIUS * np.stack([np.cos(turn), np.sin(turn)], -1)
  return np.stack([zero, zero], -1)


def displacement(obj: Object, frames: np.ndarray) -> np.ndarray:
  """Own displacement since frame 0: frames [F] -> [F, 2] units, unwrapped."""
  frames = np.asarray(frames, np.float64)
  now, then = frames + obj.phase, np.array([obj.phase])
  if obj.motion in DIRECTIONS:  # No phase: keeps large indices exact.
    return _offset(obj, frames)
  return _offset(obj, now) - _offset(obj, then)


def radius(obj: Object, frames: np.ndarray) -> np.ndarray:
  """Nominal radius [F] in units at each frame."""
  frames = np.asarray(frames, np.float64)
  base = np.full(frames.shape, SIZES[obj.size])
  if obj.motion != 'grow':
    return base
  turn = 2 * np.pi * (frames + obj.phase) / PERIODS['grow'][obj.speed]
  return base * (1 + GROWTH * 0.5 * (1 - np.cos(turn)))


def camera(scene: Scene, frames: np.ndarray) -> np.ndarray:
  """Shift [F, 2] in units that the pan gives everything on the picture."""
  frames = np.asarray(frames, np.float64)
  sign = {'none': 0.0, 'left': 1.0, 'right': -1.0}[scene.pan]
  return np.stack([sign * PAN_SPEED * frames, 0 * frames], -1)


def positions(
  scene: Scene, frames: np.ndarray, height: int = 64, width: int = 64
) -> np.ndarray:
  """Centres on the picture, wrapped: frames [F] -> [F, N, 2] (x, y) units."""
  size = np.array(world_size(height, width))
  shift = camera(scene, frames)
  paths = [
    np.array(obj.start) * size + displacement(obj, frames) + shift
    for obj in scene.objects
  ]
  return np.mod(np.stack(paths, 1), size)


def rebase(
  scene: Scene, frame: int, height: int = 64, width: int = 64
) -> Scene:
  """The same world with frame 0 moved to `frame`: nothing jumps."""
  size = np.array(world_size(height, width))
  now = np.array([frame])
  centres = positions(scene, now, height, width)[0] / size
  objects = []
  for obj, centre in zip(scene.objects, centres, strict=True):
    periods = PERIODS.get(obj.motion)
    phase = (obj.phase + frame) % periods[obj.speed] if periods else 0.0
    start = (float(centre[0]), float(centre[1]))
    objects.append(dataclasses.replace(obj, start=start, phase=phase))
  offset = np.mod(scene.background.offset + camera(scene, now)[0], size)
  background = dataclasses.replace(
    scene.background, offset=(float(offset[0]), float(offset[1]))
  )
  return dataclasses.replace(
    scene, objects=tuple(objects), background=background
  )


def sample_object(rng: np.random.Generator, settings: SceneSettings) -> Object:
  """Draws one object of the split, every attribute uniformly."""
  for _ in range(1000):
    shape = str(rng.choice(settings.shapes))
    colour = str(rng.choice(settings.colours))
    motion = str(rng.choice(settings.motions))
    speed = 'none' if motion == 'still' else str(rng.choice(settings.speeds))
    wanted = settings.split == 'heldout'
    held = is_heldout(shape, colour, motion, speed)
    if settings.split == 'all' or held == wanted:
      break
  else:
    raise UserError(
      f'the allowed shapes, colours, motions and speeds leave nothing in the '
      f'split {settings.split!r}: allow more of them or split all.'
    )
  periods = PERIODS.get(motion)
  return Object(
    shape=shape,
    colour=colour,
    size=str(rng.choice(settings.sizes)),
    motion=motion,
    speed=speed,
    start=(float(rng.random()), float(rng.random())),
    phase=float(rng.random() * periods[speed]) if periods else 0.0,
  )


def _sample_background(
  rng: np.random.Generator, settings: SceneSettings
) -> tuple[Background, str]:
  moving = [s for s in settings.shadings if s != 'plain']
  pan = 'none'
  shadings = settings.shadings
  if moving and rng.random() < settings.pan_probability:
    pan, shadings = str(rng.choice(PANS[1:])), moving  # A pan must show.
  width, height = world_size(settings.height, settings.width)
  background = Background(
    tone=str(rng.choice(settings.tones)),
    shading=str(rng.choice(shadings)),
    offset=(float(rng.random() * width), float(rng.random() * height)),
  )
  return background, pan


def sample_scene(
  rng: np.random.Generator, settings: SceneSettings | None = None
) -> Scene:
  """Draws a scene in which no object ever hides more than half of another.

  Objects of one scene differ in colour; scenes of three hold no large ones.
  """
  from jaxvid.data.shapes import render  # It draws on this module.

  settings = settings or SceneSettings()
  weights = np.array(settings.counts, np.float64)
  count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
  background, pan = _sample_background(rng, settings)
  if count > 2:
    small = tuple(s for s in settings.sizes if s != 'large')
    settings = dataclasses.replace(settings, sizes=small or settings.sizes)
  for _ in range(2000):
    objects = tuple(sample_object(rng, settings) for _ in range(count))
    if len({obj.colour for obj in objects}) < count:
      continue
    scene = Scene(objects, background, pan)
    if count == 1 or render.keeps_clear(scene, settings):
      return scene
  raise UserError(
    f'found no scene of {count} objects that differ in colour and keep '
    'clear of each other: allow fewer objects, more colours, smaller sizes.'
  )
