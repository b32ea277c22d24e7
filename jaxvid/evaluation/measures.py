"""Measures of generated clips, one by one and chunk by chunk.

Kept per clip, so that two models that were given the same captions and noise
can be compared pair by pair: the interval of a difference is then far
narrower than those of the two values.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.captions import ObjectSpec, Spec
from jaxvid.evaluation import drift, probe, statistics
from jaxvid.evaluation.probe import Reading
from jaxvid.evaluation.statistics import Interval

# What the caption always says; `right` is the mean of these verdicts.
SAID = ('count', 'colour', 'shape', 'motion', 'speed')
VERDICTS = (*SAID, 'size')
PIXELS = ('sharpness', 'saturation', 'change')
# `pace`: speed read / speed said, 1 as it should be; NaN where neither shows.
# `pixel_speed`: speed read in px/frame.
SPEEDS = ('pace', 'pixel_speed')
# Video Drift Errors of scripts, in both forms (`lv_bench`), linear weights.
DRIFTS = tuple(
  f'vde_{form}{metric}'
  for form in ('', 'paper_')
  for metric in ('clarity', 'motion', 'aesthetic', 'background', 'subject')
)
# Of scripts in which one thing changes, from `findings.DELAY` seconds after it:
# `met`: it is as the new caption says; `kept`: so is all else; `stayed`: so is
# all else that was as the caption said before, thus what the change undid.
SWITCHED = ('met', 'kept', 'stayed')
# Of scripts that return to their first scene: what the caption leaves open
# (size, background) and shows again as it did before.
REMEMBERED = 'remembered'
CLIP = ('right', *VERDICTS, *SPEEDS, *PIXELS, *DRIFTS, *SWITCHED, REMEMBERED)
# What reports show in percent.
SHARES = ('right', *VERDICTS, 'saturation', 'pace', *SWITCHED, REMEMBERED)
CHUNK = (*PIXELS, 'colour', 'shape', 'motion', *SPEEDS)
DIGITS = 5  # significant digits of what is written


@dataclasses.dataclass
class Measures:
  """Gathers measures clip by clip.

  Attributes:
    latents: latent frames per point of the curves; the first latent of a
      video is one frame, every other four.
    probe_every: the probe reads every n-th chunk by itself; 0 = none.
    clips: name -> one value per clip, NaN where nothing can be said.
    chunks: name -> one curve per clip.
  """

  latents: int = 3
  probe_every: int = 1
  clips: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  chunks: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)

  def add(
    self,
    frames: np.ndarray,
    reading: Reading,
    verdicts: Mapping[str, Sequence[bool]],
    said: Spec,
  ) -> None:
    """Notes one clip.

    Args:
      frames: uint8 `[F, H, W, 3]`.
      reading: of the whole clip.
      verdicts: of `probe.score`.
      said: what the caption says.
    """
    unit = min(frames.shape[1:3]) / scene_lib.SHORT_SIDE
    values = {name: _share(verdicts[name]) for name in VERDICTS}
    values['right'] = _mean([values[name] for name in SAID])
    values['pixel_speed'], values['pace'] = amplitude(reading, said, unit)
    curves = _pixels(frames)
    # The first frame has none before it to differ from.
    curves['change'][0] = math.nan
    values |= {name: _mean(curve) for name, curve in curves.items()}
    for name, value in values.items():
      self.clips.setdefault(name, []).append(value)
    parts = bounds(len(frames), self.latents)
    points = {
      name: [_mean(curve[part]) for part in parts]
      for name, curve in curves.items()
    }
    if self.probe_every:
      rows = [
        self._probed(frames[part], said, unit)
        if i % self.probe_every == 0
        else {}
        for i, part in enumerate(parts)
      ]
      for name in ('colour', 'shape', 'motion', *SPEEDS):
        points[name] = [row.get(name, math.nan) for row in rows]
    for name, curve in points.items():
      self.chunks.setdefault(name, []).append(np.array(curve))

  def note(self, values: Mapping[str, float]) -> None:
    """Adds further measures of the clip that was added last."""
    for name, value in values.items():
      self.clips.setdefault(name, []).append(value)

  def merge(self, other: 'Measures') -> None:
    """Takes over what another one gathered."""
    for mine, more in (
      (self.clips, other.clips),
      (self.chunks, other.chunks),
    ):
      for name, values in more.items():
        mine.setdefault(name, []).extend(values)

  def _probed(self, frames, said: Spec, unit: float) -> dict[str, float]:
    """What the probe reads in the frames of one chunk."""
    reading = probe.probe(frames)
    verdicts = probe.score(reading, said)
    pace, ratio = amplitude(reading, said, unit)
    row = {name: _share(verdicts[name]) for name in CHUNK if name in verdicts}
    return {**row, 'pixel_speed': pace, 'pace': ratio}

  def summary(self) -> dict[str, Interval]:
    """Mean of every measure over clips."""
    return {name: interval(name, v) for name, v in self.clips.items()}

  def by_chunk(self) -> dict[str, list[Interval]]:
    """Mean over clips of every curve, point by point."""
    return {
      name: [interval(name, column) for column in np.stack(curves).T]
      for name, curves in self.chunks.items()
    }

  def values(self) -> dict[str, dict]:
    """Everything per clip, as JSON holds it: NaN is None."""
    return {
      'clips': {name: _plain(values) for name, values in self.clips.items()},
      'chunks': {
        name: [_plain(curve) for curve in curves]
        for name, curves in self.chunks.items()
      },
    }


def bounds(num_frames: int, latents: int) -> list[slice]:
  """Frames of each chunk; a chunk that is cut short is left out."""
  edges = [0]
  while (end := 4 * latents * len(edges) - 3) <= num_frames:
    edges.append(end)
  return [slice(a, b) for a, b in itertools.pairwise(edges)]


def said_speed(said: ObjectSpec) -> float:
  """Units/frame that a caption asks for; NaN where it says nothing.

  Speeds of 'grow' are those of a radius and depend on the size.
  """
  if said.motion == 'still':
    return 0.0
  if said.motion in (None, 'grow') or said.speed not in scene_lib.SPEEDS:
    return math.nan
  return scene_lib.SPEEDS[said.speed]


def amplitude(reading: Reading, said: Spec, unit: float) -> tuple[float, float]:
  """Mean speed of the objects, px/frame and relative to what was said.

  Args:
    reading: of the frames.
    said: what the caption says. Objects are matched by their colour; one
      alone is the one that was asked for.
    unit: pixels per unit.
  """
  found = {obj.colour: obj for obj in reading.objects}
  if len(reading.objects) == len(said.objects) == 1:
    found = {said.objects[0].colour: reading.objects[0]}
  speeds, ratios = [], []
  for wanted in said.objects:
    speed, got = said_speed(wanted), found.get(wanted.colour)
    if got is None or math.isnan(speed):
      continue
    speeds.append(got.pixel_speed)
    if speed:
      ratios.append(got.pixel_speed / (speed * unit))
  return _mean(speeds), _mean(ratios)


def interval(name: str, values: Sequence[float]) -> Interval:
  """Mean of one measure: Wilson's interval for plain verdicts."""
  array = np.asarray(values, np.float64)
  array = array[np.isfinite(array)]
  if name in VERDICTS and np.isin(array, (0, 1)).all():
    return statistics.proportion(int(array.sum()), len(array))
  return statistics.mean(array)


def _pixels(frames: np.ndarray) -> dict[str, np.ndarray]:
  return {name: getattr(drift, name)(frames) for name in PIXELS}


def _share(verdicts: Sequence[bool]) -> float:
  return _mean([float(verdict) for verdict in verdicts])


def _mean(values) -> float:
  """Mean without NaN entries; NaN of nothing."""
  array = np.asarray(values, np.float64)
  array = array[np.isfinite(array)]
  return float(array.mean()) if len(array) else math.nan


def _plain(values) -> list[float | None]:
  return [
    float(f'{value:.{DIGITS}g}') if math.isfinite(value) else None
    for value in values
  ]
