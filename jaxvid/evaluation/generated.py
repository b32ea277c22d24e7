"""How well generated shapes-world videos show what their captions say."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxvid.data.shapes.captions import Spec
from jaxvid.evaluation import drift, probe, statistics
from jaxvid.evaluation.statistics import Interval

FPS = drift.FPS
NOTHING = 'nothing'


@dataclasses.dataclass
class Tally:
  """Verdicts of the probe, gathered clip by clip.

  Attributes:
    right: verdicts per attribute, pooled over objects and clips.
    speeds: px/frame read for objects said to be slow or fast.
    motions: motion said -> motion read (`NOTHING` where no object of that
      colour was found) -> number of objects.
  """

  right: dict[str, list[bool]] = dataclasses.field(default_factory=dict)
  speeds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
  motions: dict[str, collections.Counter[str]] = dataclasses.field(
    default_factory=dict
  )

  def add(self, frames: np.ndarray, said: Spec) -> dict[str, list[bool]]:
    """Probes one clip, uint8 `[F, H, W, 3]`; returns its verdicts."""
    return self.note(probe.probe(frames), said)

  def note(self, reading: probe.Reading, said: Spec) -> dict[str, list[bool]]:
    """Takes what was read in one clip; returns its verdicts."""
    verdicts = probe.score(reading, said)
    for name, values in verdicts.items():
      self.right.setdefault(name, []).extend(map(bool, values))
    wanted = {obj.speed for obj in said.objects}
    if len(wanted) == 1 and reading.objects:
      speed = wanted.pop() or 'unsaid'
      paces = [obj.pixel_speed for obj in reading.objects]
      self.speeds.setdefault(speed, []).extend(paces)
    found = {obj.colour: obj.motion for obj in reading.objects}
    for obj in said.objects:
      if obj.motion:
        seen = found.get(obj.colour, NOTHING)
        self.motions.setdefault(obj.motion, collections.Counter())[seen] += 1
    return verdicts

  def merge(self, other: 'Tally') -> None:
    """Takes over what another one gathered."""
    _extend(self.right, other.right)
    _extend(self.speeds, other.speeds)
    for motion, seen in other.motions.items():
      self.motions.setdefault(motion, collections.Counter()).update(seen)

  def accuracy(self) -> dict[str, Interval]:
    """Share of right verdicts per attribute."""
    return {
      name: statistics.proportion(sum(values), len(values))
      for name, values in self.right.items()
    }

  def report(self) -> dict[str, dict[str, float]]:
    """The same with its 95 % interval (Wilson), as JSON values."""
    return {name: v._asdict() for name, v in self.accuracy().items()}

  def pace(self) -> dict[str, Interval]:
    """Mean px/frame of what was asked to be slow, fast or neither."""
    return {k: statistics.mean(values) for k, values in self.speeds.items()}


def read_clip(frames: np.ndarray, said: Spec) -> Tally:
  """Probes one clip by itself, e.g. in another process."""
  result = Tally()
  result.add(frames, said)
  return result


def _extend(lists: dict[str, list], more: dict[str, list]) -> None:
  for name, values in more.items():
    lists.setdefault(name, []).extend(values)


def tally(clips: Iterable[np.ndarray], said: Sequence[Spec]) -> Tally:
  """Probes clips `[F, H, W, 3]` against what their captions say."""
  result = Tally()
  for frames, spec in zip(clips, said, strict=True):
    result.add(frames, spec)
  return result


@dataclasses.dataclass
class Timeline:
  """Verdicts and drift curves by time, for long videos.

  Attributes:
    seconds: length of a window.
    windows: one `Tally` per window.
    curves: per-second curves of every video, `[videos, seconds]` each.
  """

  seconds: int = 5
  windows: list[Tally] = dataclasses.field(default_factory=list)
  curves: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)

  def add(self, frames: np.ndarray, said: Spec) -> None:
    """Probes one video, window by window; a rest is left out."""
    length = self.seconds * FPS
    count = len(frames) // length
    while len(self.windows) < count:
      self.windows.append(Tally())
    for i in range(count):
      self.windows[i].add(frames[i * length : (i + 1) * length], said)
    for name, values in drift.curves(frames).items():
      self.curves.setdefault(name, []).append(values)

  def merge(self, other: 'Timeline') -> None:
    """Takes over what another one gathered."""
    for i, window in enumerate(other.windows):
      if i == len(self.windows):
        self.windows.append(Tally())
      self.windows[i].merge(window)
    _extend(self.curves, other.curves)

  def summary(self) -> dict:
    """Accuracy by window and mean curves by second, JSON-ready."""
    accuracy = [
      {name: interval.value for name, interval in tally.accuracy().items()}
      for tally in self.windows
    ]
    curves = {
      name: np.mean(values, 0).round(4).tolist()
      for name, values in self.curves.items()
    }
    return {
      'window_seconds': self.seconds,
      'accuracy': accuracy,
      # The first and the last window, with their intervals.
      'ends': [
        tally.report() for tally in (*self.windows[:1], *self.windows[-1:])
      ],
      'pace': [
        {name: value.value for name, value in tally.pace().items()}
        for tally in self.windows
      ],
      'curves': curves,
    }
