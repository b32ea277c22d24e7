"""Where one shot ends and the next begins.

A cut is a frame that differs from the one before by much, and by much more
than its neighbours do: so fast motion and camera shake are no cuts (the idea
of PySceneDetect's adaptive detector; code and thresholds are our own). Black
frames belong to no shot, so that fades through black separate shots too.
Dissolves are not found.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from jaxvid.data.flow import luma
from jaxvid.errors import UserError

SHORT = 48  # short side of the pictures that are compared
_SAME = 0.05  # percent; repeated pictures say nothing about the motion


@dataclasses.dataclass(frozen=True)
class SceneConfig:
  """When a change is a cut.

  Attributes:
    change: least mean difference of two frames, in percent of the range.
    ratio: least difference as a multiple of that of the frames around.
    around: how many frames on either side these are.
    black: mean luma, 0..255, below which a frame shows nothing.
  """

  change: float = 8.0
  ratio: float = 3.0
  around: int = 8
  black: float = 8.0

  def __post_init__(self):
    if self.change <= 0 or self.ratio < 1 or self.around < 1:
      raise UserError(
        'change must be > 0, ratio and around >= 1, not '
        f'{self.change:g}, {self.ratio:g} and {self.around}'
      )


def difference(before: np.ndarray, after: np.ndarray) -> float:
  """Mean difference of two pictures uint8 `[h, w, 3]`, in percent."""
  change = np.abs(after.astype(np.int16) - before)
  return float(change.mean()) / 2.55


def brightness(picture: np.ndarray) -> float:
  """Mean luma, 0..255."""
  return float(luma(picture).mean())


def find(
  changes: Sequence[float], light: Sequence[float], config: SceneConfig
) -> list[tuple[int, int]]:
  """The shots of a video as (first frame, frame after the last) pairs.

  Args:
    changes: `difference` of each frame to the one before; the first is 0.
    light: `brightness` of each frame.
    config: when a change is a cut.
  """
  differs = np.asarray(changes, np.float64)
  shown = np.asarray(light) >= config.black
  starts = {0, len(differs)}
  for i in np.flatnonzero(differs >= config.change):
    low, high = max(0, i - config.around), i + config.around + 1
    near = np.concatenate([differs[low:i], differs[i + 1 : high]])
    near = near[near > _SAME]
    if not len(near) or differs[i] >= config.ratio * near.mean():
      starts.add(int(i))
  starts |= {int(i) + 1 for i in np.flatnonzero(shown[1:] != shown[:-1])}
  edges = sorted(starts)
  return [(a, b) for a, b in itertools.pairwise(edges) if b > a and shown[a]]
