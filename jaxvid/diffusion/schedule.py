"""Tick schedules: which noise levels each chunk of a video passes through.

A schedule is data. Row i holds the ticks (denoiser calls) of chunk i; videos
longer than the table repeat its last row, or all of it when `cyclic`. Every
tick overwrites the chunk's keys and values in memory; the commit rule says
which ones stay:

* `clean`: an extra tick on the finished latents at t = 0;
* `last`: the last denoising tick, so the context stays noisy;
* `extra(t)`: an extra tick on the finished latents, noised again to raw t.

Digit strings count the ticks of each chunk: n ticks are raw 1000, then the
first n - 2 of (750, 500, 250), then 100, and n = 1 is raw 1000 alone.

Sources: DiagDistill section 3.2 and its release (`legacy`); Self-Forcing;
CausVid; Wan2.1 (`teacher`).
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxvid.diffusion import flow, solvers
from jaxvid.errors import UserError

Update = Literal['renoise', 'euler', 'unipc']
MIDDLE = (750.0, 500.0, 250.0)  # raw, between the first and the last tick
LAST = 100.0


class Level(NamedTuple):
  """A noise level: the time step the model is told, and sigma."""

  t: float
  sigma: float


CLEAN = Level(0.0, 0.0)


class Run(NamedTuple):
  """Consecutive chunks with equally many ticks, as arrays [count, K].

  Attributes:
    start: index of the first chunk.
    t: time step of each tick, 0..1000, float32.
    sigma: noise level of each tick's input.
    next_sigma: noise level each tick leads to; 0 after the last.
    context_t: time step the memory is kept at, [count].
    context_sigma: its noise level, [count].
  """

  start: int
  t: np.ndarray
  sigma: np.ndarray
  next_sigma: np.ndarray
  context_t: np.ndarray
  context_sigma: np.ndarray

  @property
  def count(self) -> int:
    """Number of chunks."""
    return self.t.shape[0]

  @property
  def num_ticks(self) -> int:
    """Ticks of each chunk, the extra one not counted."""
    return self.t.shape[1]


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The ticks of a video; hashable, so it may be a static argument.

  Attributes:
    name: for people.
    rows: ticks of chunk 0, 1, ...; time steps fall strictly.
    extra: level of the extra tick that writes the memory, None to keep what
      the last denoising tick wrote.
    update: how a tick's x0 becomes the next tick's input: `renoise` with
      fresh noise, or an `euler` or `unipc` step along the velocity.
    cyclic: longer videos repeat all rows instead of the last.
    bidirectional: the whole clip is one chunk and there is no memory.
    shift: shift of the time steps, to read raw ones back.
    flight: chunks denoised at once, each so many ticks behind the one before
      it that they finish one after the other (`stream.staggered`).
    mutual: chunks in flight attend each other both ways; else earlier ones.
  """

  name: str
  rows: tuple[tuple[Level, ...], ...]
  extra: Level | None = CLEAN
  update: Update = 'renoise'
  cyclic: bool = False
  bidirectional: bool = False
  shift: float = 5.0
  flight: int = 1
  mutual: bool = False

  def __post_init__(self):
    if not self.rows:
      raise UserError(f'schedule {self.name!r} has no ticks')
    ticks = len(self.rows[0])
    if self.flight < 1 or ticks % self.flight:
      raise UserError(
        f'schedule {self.name!r}: {self.flight} chunks in flight share '
        f'{ticks} ticks evenly only if one number divides the other'
      )
    for i, row in enumerate(self.rows):
      _check_row(f'schedule {self.name!r}, chunk {i}', row)

  def row(self, chunk: int) -> tuple[Level, ...]:
    """Levels of the ticks of a chunk, noisiest first."""
    if self.cyclic:
      return self.rows[chunk % len(self.rows)]
    return self.rows[min(chunk, len(self.rows) - 1)]

  def ticks(self, chunk: int) -> tuple[float, ...]:
    """Time steps of a chunk's ticks, as the model is told them."""
    return tuple(level.t for level in self.row(chunk))

  def levels(self) -> tuple[float, ...]:
    """Time steps that any chunk passes through, falling."""
    return tuple(sorted({t for row in self.rows for t, _ in row}, reverse=True))

  def context(self, chunk: int) -> Level:
    """Level at which the chunk stays in memory."""
    return self.row(chunk)[-1] if self.extra is None else self.extra

  def passes(self, chunk: int) -> int:
    """Ticks between two finished chunks; those in flight share them."""
    return len(self.row(chunk)) // self.flight

  def calls(self, chunk: int) -> int:
    """Denoiser calls of a chunk, without guidance."""
    extra = self.extra is not None and not self.bidirectional
    return self.passes(chunk) + extra

  def runs(self, num_chunks: int, start: int = 0) -> list[Run]:
    """Chunks start .. start + num_chunks - 1, grouped by number of ticks.

    One compiled program serves a run; `lax.scan` walks its leading axis.
    """
    chunks = range(start, start + num_chunks)
    groups = itertools.groupby(chunks, lambda i: len(self.row(i)))
    return [self._run(list(group)) for _, group in groups]

  def _run(self, chunks: list[int]) -> Run:
    levels = np.array([self.row(i) for i in chunks], np.float32)
    sigma = levels[..., 1]
    following = np.concatenate([sigma[:, 1:], np.zeros_like(sigma[:, :1])], 1)
    context = np.array([self.context(i) for i in chunks], np.float32)
    return Run(
      chunks[0], levels[..., 0], sigma, following, context[:, 0], context[:, 1]
    )


def _check_row(where: str, row: Sequence[Level]) -> None:
  """Raises UserError for ticks that cannot denoise a chunk."""
  t = [level.t for level in row]
  if not t:
    raise UserError(f'{where}: no ticks; a chunk needs at least one')
  if not all(0 < value <= 1000 for value in t):
    raise UserError(f'{where}: time steps must lie in (0, 1000], got {_csv(t)}')
  if any(b.sigma >= a.sigma for a, b in itertools.pairwise(row)):
    raise UserError(f'{where}: time steps must fall, got {_csv(t)}')
  # 999: the official UniPC table starts at sigma 0.9998.
  if t[0] < 999:
    raise UserError(
      f'{where}: a chunk starts from noise, so its first time step must be '
      f'1000, got {t[0]:g}'
    )


def _csv(values: Sequence[float]) -> str:
  return ', '.join(f'{value:g}' for value in values)


def _level(t: float, shift: float, table: bool) -> Level:
  """A shifted time step with its exact sigma, or the published table's."""
  if not table:
    return Level(t, t / 1000)
  entries = flow.sigma_table(shift).astype(np.float32)
  nearest = np.abs(entries * np.float32(1000) - np.float32(t)).argmin()
  return Level(t, float(entries[nearest]))


def parse_commit(rule: str, shift: float, table: bool) -> Level | None:
  """`clean`, `last` or `extra(t)` with raw t -> `Schedule.extra`."""
  if rule == 'clean':
    return CLEAN
  if rule == 'last':
    return None
  match = re.fullmatch(r'extra\((\d+(?:\.\d*)?)\)', rule)
  if not match or not 0 <= float(match[1]) < 1000:
    raise UserError(
      f"commit rule {rule!r} is unknown; use 'clean', 'last' or 'extra(t)' "
      'with a raw time step t from 0 to 999'
    )
  t = float(match[1])
  return _level(flow.shift_t(t, shift), shift, table) if t else CLEAN


def digit_ticks(n: int) -> tuple[float, ...]:
  """Raw time steps of n ticks, 1 <= n <= 5, by the digit rule."""
  return (1000.0,) if n == 1 else (1000.0, *MIDDLE[: n - 2], LAST)


def digits(
  text: str,
  shift: float = 5.0,
  commit: str = 'last',
  cyclic: bool = False,
  table: bool = False,
) -> Schedule:
  """Schedule with as many ticks per chunk as the digits say: `4322222`."""
  for place, digit in enumerate(text, 1):
    if digit not in '12345':
      nearest = re.sub('[6-9]', '5', text.replace('0', '1'))
      raise UserError(
        f'schedule {text!r}: digit {digit!r} in place {place}; each digit is '
        f'the number of ticks of one chunk, 1 to 5 (nearest: {nearest!r})'
      )
  rows = [digit_ticks(int(digit)) for digit in text]
  return explicit(rows, shift, commit, cyclic, table=table, name=text)


def explicit(
  rows: Sequence[Sequence[float]],
  shift: float = 5.0,
  commit: str = 'clean',
  cyclic: bool = False,
  warped: bool = False,
  table: bool = False,
  name: str = '',
) -> Schedule:
  """Schedule from one table of time steps per chunk.

  Args:
    rows: time steps of chunk 0, 1, ..., falling, the first 1000.
    shift: shift of raw time steps, and of the published table.
    commit: `clean`, `last` or `extra(t)`.
    cyclic: repeat all rows, not the last.
    warped: the rows hold shifted time steps already.
    table: snap sigma to the published table (parity only).
    name: for people; default: the first row.
  """
  if not 0 < shift < math.inf:
    raise UserError(f'shift must be positive, got {shift:g}')
  shifted = [[t if warped else flow.shift_t(t, shift) for t in r] for r in rows]
  return Schedule(
    name=name or (_csv(rows[0]) if rows else ''),
    rows=tuple(tuple(_level(t, shift, table) for t in r) for r in shifted),
    extra=parse_commit(commit, shift, table),
    cyclic=cyclic,
    shift=shift,
  )


def legacy(
  commit: str = 'last', cyclic: bool = False, table: bool = False
) -> Schedule:
  """The time steps of the DiagDistill release, middle ones rounded."""
  last = flow.shift_t(LAST, 5.0)
  rows = [(1000, 933, 733, int(last)), (1000, 933, int(last)), (1000, last)]
  return explicit(rows, 5.0, commit, cyclic, True, table, 'legacy')


def self_forcing(
  shift: float = 5.0, commit: str = 'clean', table: bool = False
) -> Schedule:
  """Raw 1000, 750, 500, 250 for every chunk (also LongLive)."""
  row = (1000.0, *MIDDLE)
  return explicit([row], shift, commit, table=table, name='self_forcing')


def causvid(commit: str = 'clean', table: bool = False) -> Schedule:
  """1000, 757, 522 for every chunk: shifted by 8 already."""
  row = (1000.0, 757.0, 522.0)
  return explicit([row], 8.0, commit, warped=True, table=table, name='causvid')


def euler(
  steps: int = 16, shift: float = 5.0, commit: str = 'clean'
) -> Schedule:
  """Many deterministic ticks per chunk: a causal model not yet distilled."""
  solver = solvers.euler_table(_positive(steps), shift)
  rows = (_levels(solver),)
  extra = parse_commit(commit, shift, False)
  return Schedule(f'euler({steps})', rows, extra, 'euler', shift=shift)


def staggered(
  steps: int,
  flight: int,
  mutual: bool,
  shift: float = 5.0,
  commit: str = 'clean',
  name: str = '',
) -> Schedule:
  """Euler ticks with several chunks in flight, later ones noisier.

  In the manner of MAGI-1 (chunks see those before them) and of progressive
  autoregressive diffusion, PAVDM (all of the window sees all of it).

  Args:
    steps: ticks of every chunk; a multiple of `flight`.
    flight: chunks denoised at once; each is steps / flight ticks behind.
    mutual: chunks in flight attend each other both ways.
    shift: of the time steps.
    commit: 'clean' or 'extra(t)'; no tick sees a finished chunk by itself.
    name: for people.
  """
  extra = parse_commit(commit, shift, False)
  if extra is None:
    raise UserError(
      "commit 'last' keeps what a tick wrote, and ticks of several chunks in "
      "flight write nothing; use 'clean' or 'extra(t)'"
    )
  rows = (_levels(solvers.euler_table(_positive(steps), shift)),)
  return Schedule(
    name or f'staggered({steps}, {flight})',
    rows,
    extra,
    'euler',
    shift=shift,
    flight=flight,
    mutual=mutual,
  )


def teacher(
  steps: int = 50, shift: float = 5.0, solver: Update = 'unipc'
) -> Schedule:
  """One bidirectional clip, denoised by UniPC or Euler: Wan2.1 itself."""
  if solver not in ('unipc', 'euler'):
    raise UserError(f"solver {solver!r} is unknown; use 'unipc' or 'euler'")
  make = solvers.unipc_table if solver == 'unipc' else solvers.euler_table
  rows = (_levels(make(_positive(steps), shift)),)
  name = f'teacher({steps}, {solver})'
  return Schedule(name, rows, None, solver, bidirectional=True, shift=shift)


def _positive(steps: int) -> int:
  if not 1 <= steps <= 500:
    raise UserError(f'a solver takes 1 to 500 steps, got {steps}')
  return steps


def _levels(table: solvers.Table) -> tuple[Level, ...]:
  pairs = zip(table.t.tolist(), table.sigma.tolist(), strict=False)
  return tuple(itertools.starmap(Level, pairs))
