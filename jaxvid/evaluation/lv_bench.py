"""LV-Bench: five scores per chunk in two forms, and their drift.

`lv_bench` is what the released benchmark computes, `paper` what equations 15
to 21 of BlockVid define; the two share names and little else.

clarity: lv_bench, the mean of a learned quality score; paper, the variance of
the Laplacian of luma.
motion: lv_bench, how well the even frames of a chunk foretell the odd ones,
0..1; paper, the mean length of the optical flow.
aesthetic: the mean of a score per frame in both.
subject: lv_bench, similarity of each frame to the one before and to the first
*of its chunk*; paper, similarity of the subject, cut out, to its mean in the
first chunk.
background: lv_bench, as subject with another embedding; paper, the share of
the background that the flow leaves in place.

So only the paper's form sees an identity that changes slowly; the released
one sees that a chunk is consistent within itself.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxvid.evaluation import vde
from jaxvid.evaluation.curves import Curves
from jaxvid.evaluation.embeddings import cosine

METRICS = ('clarity', 'motion', 'aesthetic', 'background', 'subject')


@dataclasses.dataclass(frozen=True)
class Drift:
  """One metric of one video in one form.

  Attributes:
    scores: m_1 .. m_N; empty where the video has fewer frames than chunks.
    errors: VDE by kind of weights; not a number where it is undefined.
    state: what is special, see `vde.state`.
  """

  scores: tuple[float, ...]
  errors: dict[vde.Weights, float]
  state: str


def chunk_scores(
  curves: Curves, form: vde.Form, chunks: int = vde.CHUNKS
) -> dict[str, np.ndarray]:
  """m_1 .. m_N of every metric; see above."""
  parts = vde.bounds(len(curves), chunks)
  if form == 'lv_bench':
    rules: dict[str, Callable[[slice], float]] = {
      'clarity': lambda part: _mean(curves.clarity[part]),
      'motion': lambda part: (255 - _mean(curves.misfit[part][1:-1:2])) / 255,
      'aesthetic': lambda part: _mean(curves.aesthetic[part]),
      'background': lambda part: consistency(curves.background[part]),
      'subject': lambda part: consistency(curves.subject[part]),
    }
  else:
    similar = _identity(curves.crop, parts[0]) if parts else None
    rules = {
      'clarity': lambda part: _mean(curves.sharpness[part]),
      # Flow between two chunks belongs to neither.
      'motion': lambda part: _mean(curves.energy[part][1:]),
      'aesthetic': lambda part: _mean(curves.aesthetic[part]),
      'background': lambda part: _mean(curves.static[part][1:]),
      'subject': lambda part: _mean(similar[part]),
    }
  return {
    name: np.array([rules[name](part) for part in parts], np.float64)
    for name in METRICS
  }


def consistency(rows: np.ndarray) -> float:
  """How alike the frames of a chunk are, from their embeddings `[n, E]`.

  The mean over all frames but the first of (similarity to the frame before +
  similarity to the first) / 2, negative ones taken as 0.
  """
  if len(rows) < 2:
    return np.nan
  before = np.maximum(cosine(rows[1:], rows[:-1]), 0)
  first = np.maximum(cosine(rows[1:], rows[:1]), 0)
  return float(0.5 * (before + first).mean())


def _identity(crops: np.ndarray, first: slice) -> np.ndarray:
  """Similarity of each frame's subject to the first chunk's, `[F]`.

  A subject that is gone is like nothing: 0. If the first chunk shows none,
  there is nothing to compare with: not a number.
  """
  seen = np.isfinite(crops).all(-1)
  start = crops[first][seen[first]]
  if not len(start):
    return np.full(len(crops), np.nan)
  # Equation 21 averages embeddings; unit length first, so none outweighs.
  start = start / np.maximum(
    np.linalg.norm(start, axis=-1, keepdims=True), 1e-12
  )
  similar = cosine(np.where(seen[:, None], crops, 0), start.mean(0))
  return np.where(seen, similar, 0.0)


def drift(
  curves: Curves, form: vde.Form, chunks: int = vde.CHUNKS
) -> dict[str, Drift]:
  """The five drift errors of a video, with linear and logarithmic weights."""
  return {
    name: of_scores(scores, form)
    for name, scores in chunk_scores(curves, form, chunks).items()
  }


def of_scores(scores: np.ndarray, form: vde.Form) -> Drift:
  """The drift errors of given scores."""
  state = vde.state(scores, form)
  errors = {
    kind: np.nan if state == 'short' else float(vde.error(scores, kind, form))
    for kind in vde.WEIGHTS
  }
  return Drift(tuple(map(float, scores)), errors, state)


def report(curves: Curves, chunks: int = vde.CHUNKS) -> dict[str, Any]:
  """Both forms as JSON holds them, and the five scores of the whole video."""
  whole = chunk_scores(curves, 'lv_bench', 1)
  return {
    'frames': len(curves),
    'chunks': chunks,
    'whole': {n: float(m[0]) if len(m) else None for n, m in whole.items()},
    **{
      form: {
        name: {
          'vde': dict(found.errors),
          'scores': list(found.scores),
          'state': found.state,
        }
        for name, found in drift(curves, form, chunks).items()
      }
      for form in vde.FORMS
    },
  }


def _mean(values: np.ndarray) -> float:
  """Mean without what is not a number; not a number of nothing."""
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else np.nan
