"""LV-Bench over a folder of videos: one report each, a table, plots."""

import csv
import io
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvid.data import files, video
from jaxvid.errors import UserError
from jaxvid.evaluation import curves, lv_bench, plots, scorers, statistics, vde
from jaxvid.evaluation.statistics import Interval

SUFFIXES = ('.mp4', '.webm', '.mkv', '.mov', '.avi', '.m4v')
Report = dict[str, Any]


def find(folder: str | pathlib.Path) -> list[pathlib.Path]:
  """The videos of a folder and of those in it, in the order of their names.

  Raises:
    UserError: no such folder, or no video there.
  """
  folder = pathlib.Path(folder).expanduser()
  if not folder.is_dir():
    raise UserError(f'{folder} is not a folder')
  found = sorted(
    path
    for path in folder.rglob('*')
    if path.suffix.lower() in SUFFIXES
    and path.is_file()
    and not any(p.startswith('.') for p in path.relative_to(folder).parts)
  )
  if not found:
    raise UserError(f'{folder} holds no video ({", ".join(SUFFIXES)})')
  return found


def score(
  path: pathlib.Path,
  masks: pathlib.Path | None,
  config: scorers.ScorerConfig,
  chunks: int,
  read_tensors: Callable[[pathlib.Path], Mapping[str, Any]] | None = None,
) -> Report:
  """The report of one video; a file that cannot be read has an `error`.

  Args:
    path: of the video.
    masks: .npy with bool `[F, H, W]`, True on the subject; none: segmented.
    config: what scores it.
    chunks: N.
    read_tensors: see `scorers.make`.
  """
  reader = scorers.make(config, read_tensors)
  given = None if masks is None else np.load(masks, mmap_mode='r')
  report: Report = {'scorers': dict(reader.names)}
  try:
    if given is not None:
      report['scorers']['segmenter'] = masks.name
      given = _checked(given, path)
    found = curves.read(video.native_frames(path), reader, given)
  except UserError as error:
    return report | {'error': str(error)}
  return report | lv_bench.report(found, chunks)


def _checked(masks: np.ndarray, path: pathlib.Path) -> Iterator[np.ndarray]:
  """The masks one by one, as long as they fit the video's frames."""
  for frame, mask in zip(video.native_frames(path), masks, strict=False):
    if mask.shape != frame.shape[:2]:
      raise UserError(f'masks of {path.name} are {mask.shape}')
    yield np.asarray(mask, bool)


def rows(name: str, report: Report) -> Iterator[dict[str, Any]]:
  """A video's results as lines of a table."""
  for form in vde.FORMS:
    for metric, found in report.get(form, {}).items():
      for kind, value in found['vde'].items():
        yield {
          'video': name,
          'form': form,
          'metric': metric,
          'weights': kind,
          'vde': value,
          'state': found['state'],
          **{f'm{i + 1}': m for i, m in enumerate(found['scores'])},
        }


def write_table(path: pathlib.Path, reports: Mapping[str, Report]) -> None:
  """All results as CSV, one line per video, form, metric and weights."""
  lines = [row for name, r in reports.items() for row in rows(name, r)]
  text = io.StringIO()
  keys = dict.fromkeys(key for line in lines for key in line)
  table = csv.DictWriter(text, list(keys) or ['video'])
  table.writeheader()
  table.writerows(lines)
  with files.replacing(path) as file:
    file.write(text.getvalue().encode())


def summary(reports: Mapping[str, Report]) -> dict[str, Any]:
  """Mean drift errors of a set with their 95 % intervals.

  Infinite and undefined errors are left out of the mean; `count` says how
  many videos it is over and `left_out` which are not, with the reason.
  """
  good = {name: r for name, r in reports.items() if 'error' not in r}
  result: dict[str, Any] = {
    'videos': len(good),
    'unreadable': {n: r['error'] for n, r in reports.items() if 'error' in r},
    'whole': {
      metric: statistics.mean(
        [_number(r['whole'][metric]) for r in good.values()]
      )._asdict()
      for metric in lv_bench.METRICS
    },
  }
  for form in vde.FORMS:
    result[form] = {}
    for metric in lv_bench.METRICS:
      found = {name: r[form][metric] for name, r in good.items()}
      result[form][metric] = {
        **{
          kind: statistics.mean(
            [_number(one['vde'][kind]) for one in found.values()]
          )._asdict()
          for kind in vde.WEIGHTS
        },
        'left_out': {
          name: one['state'] or 'undefined'
          for name, one in found.items()
          if not math.isfinite(_number(one['vde']['linear']))
        },
      }
  return result


def _number(value: float | None) -> float:
  return math.nan if value is None else value


def draw(folder: pathlib.Path, reports: Mapping[str, Report]) -> list[str]:
  """Plots of every score over time, relative to the first chunk.

  `<metric>.png` holds the mean over the set in both forms with its interval,
  `videos/<name>.png` all metrics of one video.

  Returns:
    the names of the files.
  """
  names = []
  for metric in lv_bench.METRICS:
    lines = {
      form: _points([r[form][metric]['scores'] for r in reports.values()])
      for form in vde.FORMS
    }
    if any(lines.values()):
      names.append(f'{metric}.png')
      _draw(folder / names[-1], lines, f'{metric}, m_i / m_1')
  for name, report in reports.items():
    lines = {
      f'{metric} ({form})': _points([report[form][metric]['scores']])
      for form in vde.FORMS
      for metric in lv_bench.METRICS
    }
    if any(lines.values()):
      names.append(f'videos/{name}.png')
      _draw(folder / names[-1], lines, 'm_i / m_1')
  return names


def _draw(path, lines, label: str) -> None:
  shown = {name: points for name, points in lines.items() if points}
  plots.draw(path, shown, 'chunk', label)


def _points(
  scores: Sequence[Sequence[float | None]],
) -> list[tuple[float, Interval]]:
  """(chunk, mean of m_i / m_1) over videos whose m_1 is not 0."""
  usable = [[_number(m) for m in row] for row in scores if row and row[0]]
  if not usable:
    return []
  relative = np.array([np.array(row) / row[0] for row in usable])
  columns = [statistics.mean(column) for column in relative.T]
  return [(i + 1.0, c) for i, c in enumerate(columns) if c.count]


def read_report(path: pathlib.Path) -> Report | None:
  """A finished report; None if there is none, or half of one."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return None
