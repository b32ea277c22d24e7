"""How far measurements of the same videos lie apart, video by video.

    python benchmarks/paired.py BEFORE.json AFTER.json [AFTER.json ...]

Reports of the task `evaluate`, each made with `--config.details=True` from the
same captions and the same seed. Prints what every verdict is in the first one
and how much it differs in the others, in points with 95 % intervals of the
paired differences.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from jaxvid.evaluation import measures, statistics

NAMES = (*measures.VERDICTS, *measures.SWITCHED)
ASKED = ('script', 'shots', 'objects', 'clips', 'seed')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('before')
  parser.add_argument('after', nargs='+')
  flags = parser.parse_args()
  try:
    before, *others = map(load, (flags.before, *flags.after))
    for file, after in zip(flags.after, others, strict=True):
      check(before, after, file)
  except ValueError as error:
    parser.error(str(error))
  print(f'{flags.before}: {line(before["clips"])}')
  for file, after in zip(flags.after, others, strict=True):
    apart = {
      name: np.subtract(after['clips'][name], values)
      for name, values in before['clips'].items()
      if name in after['clips']
    }
    print(f'{file}: {line(apart)}')


def load(file: str) -> dict[str, Any]:
  """Verdicts by clip, and what the clips were to show."""
  try:
    report = json.loads(pathlib.Path(file).read_text(encoding='utf-8'))
    clips, settings = dict(report['values']['clips']), report['settings']
  except OSError as error:
    raise ValueError(f'{file}: {error.strerror}') from error
  except (ValueError, KeyError, TypeError):
    clips, settings = {}, {}
  verdicts = {
    # What could not be read is NaN or null.
    name: np.array(clips[name], np.float64)
    for name in NAMES
    if name in clips
  }
  if not verdicts:
    raise ValueError(
      f'{file} has no verdicts by clip; evaluate with --config.details=True'
    )
  return {
    'clips': verdicts,
    'asked': {key: settings.get(key) for key in ASKED},
  }


def check(before, after, file: str) -> None:
  """ValueError if the second report is of other videos."""
  for key, value in before['asked'].items():
    if after['asked'][key] != value:
      raise ValueError(
        f'{file} has {key}={after["asked"][key]!r}, the first {value!r}'
      )


def line(values) -> str:
  """Means with their intervals, in points."""
  means = {name: statistics.mean(100 * each) for name, each in values.items()}
  return ', '.join(
    f'{name} {m.value:.1f} [{m.low:.1f}, {m.high:.1f}]'
    for name, m in means.items()
    if m.count
  )


if __name__ == '__main__':
  main()
