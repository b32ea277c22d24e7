"""Compares models by what `tasks/evaluate.py` wrote of each.

Arms are given the same captions and noise, so a difference is taken caption
by caption. Trainings with other seeds are averaged per caption first; the
intervals are over captions, given these trainings, and say nothing of
trainings that were not made. How much another seed alone changes is shown
beside them.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvid.errors import UserError
from jaxvid.evaluation import measures, statistics
from jaxvid.evaluation.statistics import Interval

PLACES = ('first', 'last', 'drift', 'departure')
# Of a caption's values, if these differ.
SAME = ('clips', 'objects', 'seed')


@dataclasses.dataclass(frozen=True)
class Claim:
  """A published ordering, as numbers that can contradict it.

  The sum over `plus` less the sum over `minus` is expected above `-margin`:
  above 0 without a margin, else "not worse by more than the margin".

  Attributes:
    text: what was published, and where.
    plus: names of arms.
    minus: names of arms.
    metric: a measure of `measures.CLIP`, or one of `measures.CHUNK` with a
      place: `pace@last`, see `values`.
    margin: what still counts as equal.
  """

  text: str
  plus: tuple[str, ...]
  minus: tuple[str, ...] = ()
  metric: str = 'right'
  margin: float = 0.0

  def __post_init__(self):
    check_metric(self.metric)
    if not self.plus:
      raise UserError(f'claim {self.text!r} compares nothing')
    if self.margin < 0:
      raise UserError(f'margin must be >= 0, not {self.margin}')


class Measured(NamedTuple):
  """One arm of an ablation.

  Attributes:
    name: of the arm.
    reports: seed of the training -> what `evaluate` wrote.
    x: place on the axis of a sweep, if it is one.
    line: which of several sweeps.
    published: the paper's own figures, as text.
  """

  name: str
  reports: Mapping[int, Mapping[str, Any]]
  x: float | None = None
  line: str = ''
  published: str = ''


class Verdict(NamedTuple):
  """What the numbers say of a claim.

  Attributes:
    claim: the claim.
    answer: 'holds', 'does not hold', 'undecided' or 'not measured'.
    difference: plus less minus, over captions.
    seeds: the same for each training seed.
  """

  claim: Claim
  answer: str
  difference: Interval
  seeds: tuple[float, ...]


def check_metric(metric: str) -> None:
  """UserError unless it names a measure and, after @, a place."""
  name, _, place = metric.partition('@')
  known = measures.CHUNK if place else measures.CLIP
  if name not in known:
    kind = 'chunk' if place else 'clip'
    raise UserError(
      f'metric {metric!r}: no measure {name!r} of a {kind}; there are '
      f'{", ".join(known)}'
    )
  if place and place not in PLACES and not place.isdigit():
    raise UserError(
      f'metric {metric!r}: a place is {", ".join(PLACES)} or the index of a '
      'chunk'
    )


def load(path: str | pathlib.Path) -> dict[str, Any] | None:
  """A report of `evaluate` with the values of every clip; None if missing."""
  path = pathlib.Path(path)
  if not path.is_file():
    return None
  try:
    report = json.loads(path.read_text(encoding='utf-8'))
    if 'clips' not in report['values']:
      raise KeyError('clips')
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} is no report with the values of its clips ({error})'
    ) from error
  return report


def values(report: Mapping[str, Any], metric: str) -> np.ndarray:
  """One value per caption `[clips]`, NaN where there is none.

  `name@i` is chunk i; `@first` and `@last` are means over the first and the
  last eighth of the chunks, at least one; `@drift` is last less first, and
  `@departure` its size.
  """
  name, _, place = metric.partition('@')
  kept = report['values']
  if not place:
    return np.array(kept['clips'][name], np.float64)
  if name not in kept['chunks']:
    raise UserError(f'{name} was not read by chunk; set probe_every')
  curves = np.array(kept['chunks'][name], np.float64)
  if place.isdigit():
    if int(place) >= curves.shape[1]:
      raise UserError(f'{metric}: there are {curves.shape[1]} chunks')
    return curves[:, int(place)]
  count = max(1, curves.shape[1] // 8)
  first, last = _mean(curves[:, :count]), _mean(curves[:, -count:])
  if place in ('first', 'last'):
    return first if place == 'first' else last
  return last - first if place == 'drift' else np.abs(last - first)


def _mean(curves: np.ndarray) -> np.ndarray:
  """Mean over axis 1 without NaN; NaN of nothing."""
  seen = np.isfinite(curves)
  total = np.where(seen, curves, 0).sum(1)
  return np.where(seen.any(1), total / np.maximum(seen.sum(1), 1), np.nan)


def interval(arm: Measured, metric: str) -> Interval:
  """Mean over captions of the mean over seeds."""
  rows = [values(report, metric) for report in arm.reports.values()]
  if len(rows) == 1:
    return measures.interval(metric.partition('@')[0], rows[0])
  return statistics.mean(np.mean(rows, 0))


def curve(arm: Measured, name: str) -> list[Interval]:
  """Mean over captions chunk by chunk."""
  rows = [r['values']['chunks'][name] for r in arm.reports.values()]
  count = np.shape(rows[0])[1]
  return [interval(arm, f'{name}@{i}') for i in range(count)]


def judge(claim: Claim, arms: Mapping[str, Measured]) -> Verdict:
  """Holds the numbers against a claim.

  It holds if the whole interval lies above `-margin` and does not if all of
  it lies below. Undecided otherwise, and where a strict ordering changes its
  sign with the seed of the trainings.
  """
  names = (*claim.plus, *claim.minus)
  for name in names:
    if name not in arms:
      raise UserError(f'claim {claim.text!r}: no arm {name!r}')
  seeds = sorted(set.intersection(*(set(arms[n].reports) for n in names)))
  if not seeds:
    nothing = Interval(np.nan, np.nan, np.nan, 0)
    return Verdict(claim, 'not measured', nothing, ())
  _check_same(claim, [arms[n].reports[s] for n in names for s in seeds])
  rows = []
  for seed in seeds:
    plus, minus = (
      sum(values(arms[n].reports[seed], claim.metric) for n in side)
      for side in (claim.plus, claim.minus)
    )
    rows.append(plus - minus)
  each = tuple(statistics.mean(row).value for row in rows)
  difference = statistics.mean(np.mean(rows, 0))
  answer = 'undecided'
  if difference.low > -claim.margin:
    answer = 'holds'
  elif difference.high < -claim.margin:
    answer = 'does not hold'
  if not claim.margin and len({value > 0 for value in each}) > 1:
    answer = 'undecided'
  return Verdict(claim, answer, difference, each)


def _check_same(claim: Claim, reports: Sequence[Mapping[str, Any]]) -> None:
  """UserError where captions differ, which no pair of clips may do."""
  asked = {tuple(r['settings'][name] for name in SAME) for r in reports}
  if len(asked) > 1:
    raise UserError(
      f'claim {claim.text!r} compares clips of other captions: '
      f'{", ".join(SAME)} differ'
    )


def between_seeds(arms: Sequence[Measured], metric: str) -> float:
  """Largest difference of two seeds of one arm; NaN if none has two."""
  spreads = []
  for arm in arms:
    rows = [values(report, metric) for report in arm.reports.values()]
    if len(rows) > 1:
      spreads.append(np.ptp([statistics.mean(row).value for row in rows]))
  return float(max(spreads)) if spreads else np.nan
