"""Video Drift Error: how far a score strays from the first chunk's.

A video is cut into N chunks of equal length (a rest is left out), each gets a
score m_i, and VDE = sum_{i >= 2} w_i |m_i - m_1| / m_1 (BlockVid, equations 13
to 15). Weights fall with time: w_i = N - i + 1, or its logarithm, whose last
weight is 0.

Two forms differ where the paper says nothing. `lv_bench` does what the
published benchmark does: a negative m_1 gives a negative error, m_1 = 0 an
infinite one, fewer than two chunks 0. `paper` divides by |m_1|, and says 0
where m_1 = 0 and nothing drifts.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Weights = Literal['linear', 'log']
Form = Literal['lv_bench', 'paper']
WEIGHTS: tuple[Weights, ...] = ('linear', 'log')
FORMS: tuple[Form, ...] = ('lv_bench', 'paper')
CHUNKS = 10  # of the released benchmark


def bounds(num_frames: int, chunks: int = CHUNKS) -> list[slice]:
  """Frames of each chunk; none where a video has fewer frames than chunks."""
  length = num_frames // chunks
  if not length:
    return []
  return [slice(i * length, (i + 1) * length) for i in range(chunks)]


def weights(chunks: int, kind: Weights) -> np.ndarray:
  """w_2 .. w_N, float64 `[chunks - 1]`."""
  falling = np.arange(chunks - 1, 0, -1, dtype=np.float64)
  return np.log(falling) if kind == 'log' else falling


def error(
  scores: Sequence[float] | np.ndarray,
  kind: Weights = 'linear',
  form: Form = 'lv_bench',
) -> float:
  """The drift error of one video.

  Args:
    scores: m_1 .. m_N.
    kind: of the weights.
    form: see above.

  Returns:
    NaN where a score is not a number (nothing to be seen in that chunk);
    else a number or, for m_1 = 0, infinity.
  """
  m = np.asarray(scores, np.float64)
  if len(m) < 2:
    return 0.0
  if not np.isfinite(m).all():
    return math.nan
  drift = float(weights(len(m), kind) @ np.abs(m[1:] - m[0]))
  if m[0] == 0:
    return 0.0 if form == 'paper' and not drift else math.inf
  return drift / (abs(m[0]) if form == 'paper' else m[0])


def state(scores: Sequence[float] | np.ndarray, form: Form) -> str:
  """What is special about a video's scores, in a word; '' if nothing is."""
  m = np.asarray(scores, np.float64)
  if not len(m):
    return 'short'
  if not np.isfinite(m).all():
    return 'unseen'
  if m[0] == 0:
    still = form == 'paper' and not m.any()
    return 'zero' if still else 'zero baseline'
  return 'negative baseline' if m[0] < 0 else ''
