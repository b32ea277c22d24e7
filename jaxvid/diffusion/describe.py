"""Schedules as people write them, and as people read them."""

import dataclasses
import difflib
import itertools
import math

from jaxvid.diffusion import flow
from jaxvid.diffusion import schedule as schedules
from jaxvid.diffusion.schedule import Schedule, Update
from jaxvid.errors import UserError

NAMES = (
  'self_forcing',
  'causvid',
  'legacy',
  'euler',
  'teacher',
  'magi',
  'pavdm',
)
# Ticks of a chunk and chunks in flight, unless told otherwise. MAGI-1 has up
# to 4 chunks in flight; the rest is ours.
STAGGERED = {'magi': (64, 4), 'pavdm': (48, 8)}


@dataclasses.dataclass(frozen=True)
class Spec:
  """What a person writes to choose a schedule.

  Attributes:
    name: digits (`4322222`), raw time steps (`1000,750,500,250`, chunks
      separated by `;`) or one of `NAMES`.
    shift: shift of raw time steps; 0 for the default, 5.
    commit: `clean`, `last`, `extra(t)`; empty for the schedule's own rule:
      `last` for digits and `legacy`, `clean` otherwise.
    cyclic: repeat the whole table, not its last row.
    warped: explicit time steps are shifted already.
    table: snap sigma to the published table (parity only).
    steps: solver steps of `euler` (16), `teacher` (50), `magi` (64) and
      `pavdm` (48); 0 for these.
    solver: of `teacher`: `unipc` or `euler`.
    flight: chunks in flight of `magi` (4) and `pavdm` (8); 0 for these.
  """

  name: str = '4322222'
  shift: float = 0.0
  commit: str = ''
  cyclic: bool = False
  warped: bool = False
  table: bool = False
  steps: int = 0
  solver: Update = 'unipc'
  flight: int = 0


def build(spec: Spec) -> Schedule:
  """Spec -> schedule; UserError for impossible ones."""
  name = spec.name.strip()
  shift = spec.shift or 5.0
  if not 0 < shift < math.inf:
    raise UserError(f'shift must be positive, got {shift:g}')
  commit = spec.commit or ('last' if _is_diagonal(name) else 'clean')
  if name.isascii() and name.isdigit():
    return schedules.digits(name, shift, commit, spec.cyclic, spec.table)
  if ',' in name or ';' in name:
    rows = [_numbers(name, row) for row in name.split(';')]
    return schedules.explicit(
      rows, shift, commit, spec.cyclic, spec.warped, spec.table, name
    )
  match name:
    case 'self_forcing':
      return schedules.self_forcing(shift, commit, spec.table)
    case 'causvid':
      return schedules.causvid(commit, spec.table)
    case 'legacy':
      return schedules.legacy(commit, spec.cyclic, spec.table)
    case 'euler':
      return schedules.euler(spec.steps or 16, shift, commit)
    case 'teacher':
      return schedules.teacher(spec.steps or 50, shift, spec.solver)
    case 'magi' | 'pavdm':
      steps, flight = STAGGERED[name]
      return schedules.staggered(
        spec.steps or steps,
        spec.flight or flight,
        name == 'pavdm',
        shift,
        commit,
        name,
      )
  near = difflib.get_close_matches(name, NAMES, 1) or ['4322222']
  raise UserError(
    f'schedule {spec.name!r} is unknown; did you mean {near[0]!r}? Give '
    f'digits, raw time steps separated by commas, or one of {", ".join(NAMES)}'
  )


def _is_diagonal(name: str) -> bool:
  return name == 'legacy' or name.isdigit()


def _numbers(name: str, row: str) -> list[float]:
  try:
    return [float(part) for part in row.split(',') if part.strip()]
  except ValueError:
    raise UserError(
      f'schedule {name!r}: {row.strip()!r} is no list of numbers'
    ) from None


def explain(
  schedule: Schedule,
  num_chunks: int,
  chunk: int = 3,
  guidance: float = 1.0,
) -> str:
  """A table of what happens to each chunk of a video, for people.

  Args:
    schedule: the ticks.
    num_chunks: chunks of the video.
    chunk: latent frames per chunk.
    guidance: weight of classifier-free guidance; any but 1 doubles the calls.
  """
  passes = 1 if guidance == 1 else 2
  groups = itertools.groupby(range(num_chunks), schedule.row)
  lines = [['chunks', 'latents', 'ticks: t (raw, sigma)', 'memory', 'calls']]
  for chunks in (list(group) for _, group in groups):
    first, last = chunks[0], chunks[-1]
    times = f'{len(chunks)} x ' if len(chunks) > 1 else ''
    lines.append(
      [
        _span(first, last),
        _span(first * chunk, last * chunk + chunk - 1),
        _ticks(schedule, first),
        _memory(schedule, first),
        f'{times}{passes * schedule.calls(first)}',
      ]
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  table = ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
  total = _total(schedule, num_chunks, passes)
  return '\n'.join([_title(schedule), *table, total])


def _title(schedule: Schedule) -> str:
  """First line: name, shift, what happens between ticks and after the end."""
  update = {
    'renoise': 'fresh noise between ticks',
    'euler': 'Euler steps',
    'unipc': 'UniPC steps',
  }[schedule.update]
  if schedule.bidirectional:
    then = 'the whole clip at once'
  else:
    what = 'the whole table' if schedule.cyclic else 'its last row'
    then = f'longer videos repeat {what}'
  if schedule.flight > 1:
    update += f', {schedule.flight} chunks in flight'
  return f'schedule {schedule.name}: shift {schedule.shift:g}, {update}, {then}'


def _span(first: int, last: int) -> str:
  return f'{first}' if first == last else f'{first}-{last}'


def _ticks(schedule: Schedule, chunk: int) -> str:
  """All ticks of a chunk; long lists lose their middle."""
  row = schedule.row(chunk)
  texts = [
    f'{t:.6g} ({flow.unshift_t(1000 * sigma, schedule.shift):.4g}, {sigma:.4f})'
    for t, sigma in row
  ]
  if len(texts) > 6:
    texts[3:-2] = [f'... {len(texts) - 5} more ...']
  return ', '.join(texts)


def _memory(schedule: Schedule, chunk: int) -> str:
  """Which tick's keys and values the chunk leaves behind."""
  if schedule.bidirectional:
    return 'none'
  level = schedule.context(chunk)
  if schedule.extra is None:
    return f'tick {len(schedule.row(chunk))} (t {level.t:.6g})'
  return f'extra tick at t {level.t:.6g}'


def _total(schedule: Schedule, num_chunks: int, passes: int) -> str:
  """Last line: denoiser calls of the whole video."""
  ticks = sum(schedule.passes(i) for i in range(num_chunks))
  # Until the first chunk is finished, those behind it have begun.
  start = len(schedule.row(0)) - schedule.passes(0)
  ticks += start
  calls = start + sum(schedule.calls(i) for i in range(num_chunks))
  guided = ' x 2 (guidance)' if passes == 2 else ''
  return (
    f'total: {ticks} ticks + {calls - ticks} extra{guided} = '
    f'{passes * calls} denoiser calls; NFE as DiagDistill counts it '
    f'(2 x ticks): {2 * ticks}'
  )
