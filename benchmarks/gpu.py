"""Runs the benchmarks of one GPU, the most telling first, within a time limit.

    python -m benchmarks.gpu --output=benchmarks/results [--seconds=520]
    python -m benchmarks.gpu --output=out --tiny   # on a CPU: does it run?

Every job is a process of its own: what fails or hangs ends alone. Needs no
data, video or config package. Results: one JSON file per job, and all of them
in `gpu_<date>.json` with a table, predictions beside measurements.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

LIMIT = 520  # seconds in all; the promise is 9 minutes
# Name, most seconds, settings of the task.
JOBS = (
  ('kernels', 70, {}),
  ('diagdistill', 170, {'systems': ('diagdistill',), 'soak': 60.0}),
  (
    'diagdistill_fp8',
    80,
    {
      'systems': ('diagdistill',),
      'speed': {'quantization': 'fp8'},
      'parts': ('steady', 'ticks'),
    },
  ),
  (
    'diagdistill_fp8_scores',
    80,
    {
      'systems': ('diagdistill',),
      'speed': {
        'quantization': 'fp8',
        'backend': 'mosaic_fp8',
        'key_dtype': 'e4m3',
      },
      'parts': ('steady', 'ticks'),
    },
  ),
  (
    'longlive',
    90,
    {'systems': ('longlive',), 'parts': ('steady', 'ticks', 'first_frame')},
  ),
  (
    'one_step',
    60,
    {'systems': ('one_step',), 'parts': ('steady', 'ticks', 'first_frame')},
  ),
  (
    'self_forcing',
    80,
    {'systems': ('self_forcing',), 'parts': ('steady', 'ticks')},
  ),
  ('train', 70, {}),
  (
    'one_step_8b',
    80,
    {'systems': ('one_step',), 'size': '8b', 'parts': ('steady', 'ticks')},
  ),
  (
    'waterfall',
    240,
    {
      'systems': ('waterfall',),
      'parts': ('steady', 'ticks', 'decode'),
      'chunks': 12,
    },
  ),
)
TINY = {'size': 'tiny', 'height': 16, 'width': 32, 'chunks': 2}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--output', default='benchmarks/results')
  parser.add_argument('--seconds', type=float, default=LIMIT)
  parser.add_argument('--tiny', action='store_true')
  parser.add_argument('--only', default='', help='jobs, separated by commas')
  parser.add_argument('--job', default='', help=argparse.SUPPRESS)
  flags = parser.parse_args()
  output = pathlib.Path(flags.output)
  if flags.job:
    run_job(flags.job, output, flags.seconds, flags.tiny)
  else:
    run_all(flags, output)


def run_all(flags, output: pathlib.Path) -> None:
  """Runs the jobs one after the other and gathers what they wrote."""
  output.mkdir(parents=True, exist_ok=True)
  deadline = time.monotonic() + flags.seconds
  only = flags.only.split(',') if flags.only else [name for name, *_ in JOBS]
  done = {}
  for name, most, _ in JOBS:
    left = deadline - time.monotonic()
    if name not in only or left < 15:
      continue
    done[name] = _process(name, min(most, left), output, flags)
    _gather(output, done)


def _process(name: str, seconds: float, output: pathlib.Path, flags) -> str:
  """Runs one job; says how it ended."""
  _file(output, name).unlink(missing_ok=True)
  command = [sys.executable, '-m', 'benchmarks.gpu', f'--job={name}']
  command += [f'--output={output}', f'--seconds={0.8 * seconds}']
  command += ['--tiny'] if flags.tiny else []
  print(f'== {name}, {seconds:.0f} s at most', flush=True)
  cache = str(output.absolute() / '.cache')
  # Programs that several jobs share are compiled once.
  environment = {'JAX_COMPILATION_CACHE_DIR': cache, **os.environ}
  try:
    done = subprocess.run(command, timeout=seconds, env=environment)
  except subprocess.TimeoutExpired:
    return 'out of time'
  return 'complete' if done.returncode == 0 else f'failed ({done.returncode})'


def _file(output: pathlib.Path, name: str) -> pathlib.Path:
  return output / f'gpu_{name}.json'


def _gather(output: pathlib.Path, done: dict[str, str]) -> None:
  """Writes everything so far into one file."""
  parts = {}
  for name, ended in done.items():
    file = _file(output, name)
    report = json.loads(file.read_text()) if file.exists() else {}
    parts[name] = {'ended': ended, **report}
  path = output / f'gpu_{time.strftime("%Y-%m-%d")}.json'
  path.write_text(json.dumps(parts, indent=1) + '\n')
  print(f'-- {path}: ' + ', '.join(f'{n} {e}' for n, e in done.items()))


def run_job(name: str, output: pathlib.Path, seconds: float, tiny: bool):
  """One job in this process."""
  path = str(_file(output, name))
  settings = dict(next(job[2] for job in JOBS if job[0] == name))
  if name == 'kernels':
    kernels(path, 'tiny' if tiny else '1.3b')
  elif name == 'train':
    from jaxvid.tasks import train_speed

    small = {'size': 'tiny', 'height': 16, 'width': 32, 'frames': 2}
    options = small if tiny else {}
    train_speed.run(train_speed.Config(**options, output=path))
  else:
    from jaxvid.tasks import speed

    settings |= TINY if tiny else {}
    settings['speed'] = speed.Speed(**settings.get('speed', {}))
    if tiny and settings['speed'].backend.startswith('mosaic'):
      raise SystemExit('our kernel needs a GPU')
    if tiny and 'soak' in settings:
      settings['soak'] = 0.1
    speed.run(speed.Config(**settings, budget=seconds, output=path))
    report = json.loads(pathlib.Path(path).read_text())
    for row in report['rows']:
      ratio = row.get('measured_to_predicted', 1.0)
      if abs(ratio - 1) > 0.15:
        print(f'{row["name"]}: {ratio:.2f} of the prediction; find out why')


def kernels(path: str, size: str) -> None:
  """Single kernels, each printed beside its prediction."""
  from jaxvid.tasks import speed_kernels, speed_measure

  report = {'machine': speed_measure.machine(), 'rows': []}
  for row in speed_kernels.measure(size):
    report['rows'].append(row)
    pathlib.Path(path).write_text(json.dumps(report, indent=1) + '\n')
    if 'error' in row:
      print(f'{row["name"]}: {row["error"]}')
    else:
      expected = f', predicted {row["predicted"]}' if 'predicted' in row else ''
      print(
        f'{row["name"]}: {row["ms"]:.3f} ms, '
        f'{row["tera_per_s"]:.1f} T/s{expected}'
      )


if __name__ == '__main__':
  main()
