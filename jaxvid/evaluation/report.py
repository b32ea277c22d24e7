"""The report of an ablation as Markdown."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from jaxvid.evaluation import measures
from jaxvid.evaluation.comparison import (
  Measured,
  Verdict,
  between_seeds,
  interval,
)
from jaxvid.evaluation.statistics import Interval


def markdown(
  title: str,
  arms: Sequence[Measured],
  columns: Sequence[str],
  verdicts: Sequence[Verdict],
  pictures: Sequence[str] = (),
) -> str:
  """The whole report: arms, what was published and whether it holds, plots."""
  parts = [
    f'# {title}',
    'Mean and 95 % interval over captions; verdicts and shares in percent. '
    'Calls: denoiser calls per clip with the passes that write the memory.',
    '\n'.join(_table(arms, columns)),
  ]
  if spread := list(_spread(arms, columns)):
    parts.append(
      'Largest difference between two trainings of one arm that differ in '
      f'their seed alone: {", ".join(spread)}.'
    )
  if verdicts:
    parts += ['## Published orderings', '\n'.join(_claims(verdicts))]
  parts += [f'![{pathlib.Path(name).stem}]({name})' for name in pictures]
  return '\n\n'.join(parts) + '\n'


def _table(arms, columns) -> Iterator[str]:
  published = any(arm.published for arm in arms)
  heads = ['arm', 'clips', 'seeds', 'ticks', 'calls', *columns]
  heads += ['published'] if published else []
  yield _line(heads)
  yield _line(['---'] * len(heads))
  for arm in arms:
    cells = [arm.name, '-', '0', '-', '-', *['not measured'] * len(columns)]
    if arm.reports:
      first = next(iter(arm.reports.values()))
      counts = [
        first['clips'],
        len(arm.reports),
        first['ticks_per_clip'],
        first['calls_per_clip'],
      ]
      shown = [shown_as(name, interval(arm, name)) for name in columns]
      cells = [arm.name, *map(str, counts), *shown]
    yield _line([*cells, arm.published] if published else cells)


def _spread(arms, columns) -> Iterator[str]:
  for name in columns:
    spread = between_seeds([arm for arm in arms if arm.reports], name)
    if np.isfinite(spread):
      yield f'{name} {_number(name, spread)}'


def _claims(verdicts: Sequence[Verdict]) -> Iterator[str]:
  yield _line(['published', 'here', 'measure', 'difference', 'by seed'])
  yield _line(['---'] * 5)
  for verdict in verdicts:
    claim = verdict.claim
    terms = ' + '.join(claim.plus)
    terms += ''.join(f' - {name}' for name in claim.minus)
    margin = f' > -{_number(claim.metric, claim.margin)}'
    wanted = margin if claim.margin else ' > 0'
    yield _line(
      [
        claim.text,
        f'**{verdict.answer}**',
        f'{claim.metric}: {terms}{wanted}',
        shown_as(claim.metric, verdict.difference),
        ', '.join(_number(claim.metric, value) for value in verdict.seeds),
      ]
    )


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


def _number(metric: str, value: float) -> str:
  """Verdicts and shares in percent."""
  name = metric.partition('@')[0]
  if name in measures.SHARES:
    return f'{100 * value:.1f}'
  return f'{value:.4g}'


def shown_as(metric: str, value: Interval) -> str:
  """`12.3 [11.0, 13.6]`, or a dash for nothing."""
  if not value.count:
    return '-'
  return '{} [{}, {}]'.format(*(_number(metric, v) for v in value[:3]))
