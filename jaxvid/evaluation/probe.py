"""Reads shapes-world video back: what shows, where it goes and how fast.

No network is involved: colours are named by direction from the background,
shapes by comparison with drawn ones, motions by fitting their formulas.
`benchmarks/probe.py` measures it on real renders.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.captions import Spec
from jaxvid.data.shapes.scene import Scene
from jaxvid.errors import UserError
from jaxvid.evaluation import probe_motion, probe_shape, probe_tracks
from jaxvid.evaluation.probe_tracks import Track

ATTRIBUTES = ('colour', 'shape', 'motion', 'speed', 'size')


@dataclasses.dataclass(frozen=True)
class ObjectReading:
  """What one object looks like.

  Attributes:
    colour, shape, size, motion: names as in the scene.
    speed: 'slow', 'fast', or 'none' for a still object.
    pixel_speed: px/frame; of the radius for 'grow'.
    centre: [F, 2] (x, y) px, not-a-number where it does not show.
    radius: [F] nominal radius in px.
  """

  colour: str
  shape: str
  size: str
  motion: str
  speed: str
  pixel_speed: float
  centre: np.ndarray
  radius: np.ndarray


@dataclasses.dataclass(frozen=True)
class Reading:
  """All objects (one per colour), their number (patches) and the ground."""

  objects: tuple[ObjectReading, ...]
  count: int
  tone: str
  shading: str
  pan: str


def _read_object(track: Track, drift: float) -> ObjectReading:
  count, height, width = track.alpha.shape
  unit = min(height, width) / scene_lib.SHORT_SIDE
  shape = probe_shape.read_shape(track)
  centre, radius, trust = probe_shape.measure(track, shape)
  # Where nothing trustworthy shows, the object went on as between.
  seen = np.flatnonzero(trust >= min(1.0, trust.max()))
  index = np.arange(count)
  x, y = (
    np.interp(index, seen, np.unwrap(axis[seen], period=size))
    for axis, size in zip(centre.T, (width, height), strict=True)
  )
  path = (x + 1j * y) / unit - drift * index
  size = np.interp(index, seen, radius[seen]) / unit
  motion, speed, pace = probe_motion.read_motion(path, size, trust)
  # A growing object is named by its smallest size.
  typical = np.percentile(size[seen], 5 if motion == 'grow' else 50)
  typical = max(typical, 1e-3)  # What is but a speck may measure nothing.
  names = scene_lib.SIZES
  return ObjectReading(
    colour=track.colour,
    shape=shape,
    size=min(names, key=lambda n: abs(np.log(typical / names[n]))),
    motion=motion,
    speed=speed,
    pixel_speed=pace * unit,
    centre=centre,
    radius=radius,
  )


def probe(frames: np.ndarray) -> Reading:
  """Reads a clip.

  Args:
    frames: [F, H, W, 3] uint8.

  Returns:
    What shows, objects in the order of the palette.
  """
  frames = np.asarray(frames)
  if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
    raise UserError(
      'the probe reads uint8 frames [F, H, W, 3], not '
      f'{frames.dtype} {list(frames.shape)}.'
    )
  tracks, backdrop = probe_tracks.read_tracks(frames)
  return Reading(
    objects=tuple(_read_object(track, backdrop.drift) for track in tracks),
    count=sum(track.blobs for track in tracks),
    tone=backdrop.tone,
    shading=backdrop.shading,
    pan=backdrop.pan,
  )


def score(reading: Reading, truth: Scene | Spec) -> dict[str, list[bool]]:
  """Compares a reading with what should show.

  Objects are matched so that most attributes agree. Attributes that a
  caption leaves open are not judged; an object that was not found counts as
  wrong in all the others.

  Returns:
    For 'count' one verdict, for each of `ATTRIBUTES` one per judged object.
  """
  said = truth if isinstance(truth, Spec) else captions_lib.spec(truth)
  verdicts = {'count': [reading.count == len(said.objects)]}
  verdicts |= {name: [] for name in ATTRIBUTES}

  def agreement(wanted, found):
    return [
      found is not None and getattr(wanted, name) == getattr(found, name)
      for name in ATTRIBUTES
      if getattr(wanted, name) is not None
    ]

  missing = [None] * len(said.objects)
  found = [*reading.objects, *missing]
  best = max(
    itertools.permutations(found, len(said.objects)),
    key=lambda order: sum(
      sum(agreement(wanted, got))
      + (got is not None and got.colour == wanted.colour)
      for wanted, got in zip(said.objects, order, strict=True)
    ),
  )
  for wanted, got in zip(said.objects, best, strict=True):
    names = [n for n in ATTRIBUTES if getattr(wanted, n) is not None]
    for name, good in zip(names, agreement(wanted, got), strict=True):
      verdicts[name].append(good)
  return verdicts


def accuracy(scores: Sequence[dict[str, list[bool]]]) -> dict[str, float]:
  """Share of right verdicts per attribute over many clips."""
  names = ('count', *ATTRIBUTES)
  pooled = {n: [v for score in scores for v in score[n]] for n in names}
  return {n: float(np.mean(v)) for n, v in pooled.items() if v}
