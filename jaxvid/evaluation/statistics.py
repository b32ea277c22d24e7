"""Confidence intervals: every figure that compares methods carries one."""

import math
from typing import NamedTuple

import numpy as np

_Z95 = 1.959964


class Interval(NamedTuple):
  """An estimate with its 95 % confidence interval."""

  value: float
  low: float
  high: float
  count: int

  def __str__(self) -> str:
    return f'{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]'


def proportion(hits: int, count: int) -> Interval:
  """Share of hits with the Wilson score interval; NaN for no trials."""
  if count == 0:
    return Interval(math.nan, math.nan, math.nan, 0)
  share = hits / count
  z2 = _Z95**2 / count
  centre = (share + z2 / 2) / (1 + z2)
  spread = _Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
  spread /= 1 + z2
  low, high = max(centre - spread, 0.0), min(centre + spread, 1.0)
  return Interval(share, low, high, count)


def mean(values) -> Interval:
  """Mean with the normal interval; NaN entries are left out."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  count = len(values)
  if count == 0:
    return Interval(math.nan, math.nan, math.nan, 0)
  centre = float(values.mean())
  error = _Z95 * values.std(ddof=1) / math.sqrt(count) if count > 1 else 0.0
  return Interval(centre, centre - float(error), centre + float(error), count)
