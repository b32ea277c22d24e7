"""All that is read in a generated video; made in one process, kept in one."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxvid.data.shapes.captions import Spec
from jaxvid.evaluation import curves, drift, lv_bench, probe, scorers
from jaxvid.evaluation.generated import Tally, Timeline
from jaxvid.evaluation.measures import REMEMBERED, SWITCHED, Measures
from jaxvid.evaluation.scorers import ScorerConfig

FPS = drift.FPS
DELAY = 2.0  # seconds that a stream has to follow a new caption


@dataclasses.dataclass(frozen=True)
class What:
  """What is looked for.

  Attributes:
    window: seconds per window of the timeline; 0 = no timeline.
    latents: latent frames per point of the curves by chunk.
    probe_every: the probe reads every n-th chunk by itself; 0 = none.
  """

  window: int = 0
  latents: int = 3
  probe_every: int = 1


@dataclasses.dataclass
class Findings:
  """Of one video, or of many.

  Attributes:
    tally: verdicts on whole videos.
    timeline: verdicts and drift by time.
    measures: of every clip, and of every chunk.
  """

  tally: Tally
  timeline: Timeline
  measures: Measures

  @classmethod
  def none(cls, what: What) -> 'Findings':
    """Before the first video."""
    measures = Measures(what.latents, what.probe_every)
    return cls(Tally(), Timeline(what.window), measures)

  def merge(self, other: 'Findings') -> None:
    """Takes over what was found elsewhere."""
    self.tally.merge(other.tally)
    self.timeline.merge(other.timeline)
    self.measures.merge(other.measures)


def read(frames: np.ndarray, said: Spec, what: What) -> Findings:
  """Reads one video.

  Args:
    frames: uint8 `[F, H, W, 3]`.
    said: what its caption says.
    what: what is looked for.
  """
  found = Findings.none(what)
  reading = probe.probe(frames)
  verdicts = found.tally.note(reading, said)
  found.measures.add(frames, reading, verdicts, said)
  if what.window:
    found.timeline.add(frames, said)
  return found


def read_script(
  frames: np.ndarray, shots: Sequence[tuple[int, Spec]], what: What
) -> Findings:
  """Reads a video of several shots by its last one.

  The probe reads the last shot, where a script may return to its first
  scene; drift is that of first and last shot, one after the other.

  Args:
    frames: uint8 `[F, H, W, 3]`.
    shots: (first frame, what its caption says) of every shot.
    what: what is looked for.
  """
  start, said = shots[-1]
  found = read(frames[start:], said, what)
  first = shots[1][0] if len(shots) > 1 else start
  found.measures.note(drifts(np.concatenate([frames[:first], frames[start:]])))
  if len(shots) > 1:
    found.measures.note(after_switch(frames, shots[-2][1], shots[-1]))
  if len(shots) > 2 and said == shots[0][1]:
    share = remembered(frames[:first], frames[start:], said)
    found.measures.note({REMEMBERED: share})
  return found


def remembered(before: np.ndarray, after: np.ndarray, said: Spec) -> float:
  """How much of what a caption leaves open shows again as it did before.

  Args:
    before: the scene's first shot, uint8 `[F, H, W, 3]`.
    after: the shot that returns to it.
    said: what the caption of both says.

  Returns:
    The share of size, tone and shading; not a number where all are said.
  """
  one, two = probe.probe(before), probe.probe(after)
  same = [
    getattr(one, name) == getattr(two, name)
    for name in ('tone', 'shading')
    if getattr(said, name) is None
  ]
  if len(said.objects) == 1 and said.objects[0].size is None:
    sizes = [[obj.size for obj in reading.objects] for reading in (one, two)]
    same.append(len(sizes[0]) == 1 and sizes[0] == sizes[1])
  return float(np.mean(same)) if same else math.nan


def after_switch(
  frames: np.ndarray, before: Spec, shot: tuple[int, Spec]
) -> dict[str, float]:
  """How far a video follows its last change of the caption.

  Args:
    frames: uint8 `[F, H, W, 3]`.
    before: what the caption said.
    shot: (first frame, what it says now).

  Returns:
    'met', 'kept' and 'stayed', see `measures.SWITCHED`: shares of the
    attributes of the objects; not a number where too little is left to see,
    or where none of them changed.
  """
  start, after = shot
  rest = frames[start + round(DELAY * FPS) :]
  values = dict.fromkeys(SWITCHED, math.nan)
  if len(rest) < FPS or len(before.objects) != len(after.objects):
    return values
  earlier = probe.score(probe.probe(frames[:start]), before)
  later = probe.score(probe.probe(rest), after)
  right: dict[str, list[bool]] = {name: [] for name in values}
  for name in probe.ATTRIBUTES:
    # Verdicts are there for what a caption says.
    was, now = iter(earlier[name]), iter(later[name])
    for old, new in zip(before.objects, after.objects, strict=True):
      old, new = getattr(old, name), getattr(new, name)
      good_before = old is not None and next(was)
      if new is None:
        continue
      good = next(now)
      right['met' if old != new else 'kept'].append(good)
      if old == new and good_before:
        right['stayed'].append(good)
  for name, verdicts in right.items():
    if verdicts:
      values[name] = float(np.mean(verdicts))
  return values


def drifts(frames: np.ndarray) -> dict[str, float]:
  """Video Drift Errors of a shapes-world video, see `measures.DRIFTS`.

  Light scorers and the exact segmenter; not a number where it is undefined.
  """
  reader = scorers.make(ScorerConfig(segmenter='shapes'))
  found = curves.read(frames, reader)
  values = {}
  for form, prefix in (('lv_bench', 'vde_'), ('paper', 'vde_paper_')):
    for metric, one in lv_bench.drift(found, form).items():
      value = one.errors['linear']
      values[prefix + metric] = value if math.isfinite(value) else math.nan
  return values
