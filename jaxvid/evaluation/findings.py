"""All that is read in a generated video; made in one process, kept in one."""

import dataclasses

import numpy as np

from jaxvid.data.shapes.captions import Spec
from jaxvid.evaluation import probe
from jaxvid.evaluation.generated import Tally, Timeline
from jaxvid.evaluation.measures import Measures


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
