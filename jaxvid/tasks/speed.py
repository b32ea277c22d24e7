"""Times streams of random weights at any size, beside what is possible.

For systems whose weights nobody has, or for a card that one wants to know:
`benchmark` measures a model that ships instead. Results are written as they
come, each beside its limit and its prediction (`evaluation.roofline`).
"""

import dataclasses
import gc
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation import speed_report
from jaxvid.tasks.progress import say

SYSTEMS = ('diagdistill', 'longlive', 'self_forcing', 'one_step')
WATERFALL = 'waterfall'
PARTS = (
  'compile',
  'first_frame',
  'steady',
  'ticks',
  'decode',
  'switch',
  'text',
  'soak',
)


@dataclasses.dataclass(frozen=True)
class Speed:
  """How a stream is run.

  Attributes:
    fused: parameters in the streaming layout.
    deferred: extra ticks inside the next chunk's first; none: as the system.
    dtype: compute type; empty: bfloat16 on a GPU, float32 elsewhere.
    residual: type of the tokens between layers; empty: `dtype`.
    backend: of attention; empty: what suits the device.
    key_dtype: of the memory's keys, see `MemoryConfig`.
    quantization: of the transformer's linear layers (`int8`, `w8a8`, `fp8`).
  """

  fused: bool = True
  deferred: bool | None = None
  dtype: Literal['', 'float32', 'bfloat16'] = ''
  residual: Literal['', 'float32', 'bfloat16'] = ''
  backend: str = ''
  key_dtype: Literal['', 'e4m3'] = ''
  quantization: Literal['', 'int8', 'w8a8', 'fp8'] = ''

  @property
  def precision(self) -> Literal['bfloat16', 'fp8_linear', 'fp8']:
    """What limit and prediction are computed for."""
    if self.quantization != 'fp8':
      return 'bfloat16'
    return 'fp8' if self.backend == 'mosaic_fp8' else 'fp8_linear'


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    systems: names of `SYSTEMS`, or 'waterfall': from Self-Forcing to
      DiagDistill, one change at a time.
    size: 'tiny', 'small', '1.3b', '8b' or '14b'.
    height: of the frames in pixels.
    width: of the frames in pixels.
    decoder: 'tae' or 'vae'; empty: the system's own.
    speed: how streams are run.
    chunks: steady chunks that are timed.
    soak: seconds of a long run; 0 for none.
    parts: what is measured; empty: everything.
    budget: seconds after which nothing new is begun; 0 for no limit.
    output: JSON file, written as results come; a plot goes beside it.
  """

  systems: tuple[str, ...] = ('diagdistill',)
  size: str = '1.3b'
  height: int = 480
  width: int = 832
  decoder: Literal['', 'tae', 'vae'] = ''
  speed: Speed = Speed()
  chunks: int = 50
  soak: float = 0.0
  parts: tuple[str, ...] = ()
  budget: float = 0.0
  output: str = ''


def run(config: Config) -> None:
  """Measures every system, prints a table, writes JSON and a plot."""
  check(config)
  from jaxvid.tasks import speed_measure  # Imports jax.

  report: dict[str, Any] = {
    'machine': speed_measure.machine(),
    'settings': dataclasses.asdict(config),
    'rows': [],
  }
  deadline = time.monotonic() + (config.budget or 1e9)
  for name, system in _systems(config):
    if time.monotonic() > deadline:
      say(f'no time left for {name}')
      continue
    row: dict[str, Any] = {'name': name}
    report['rows'].append(row)
    _measure(
      config, name, system, row, deadline, lambda: _write(config, report)
    )
    gc.collect()  # Buffers of one system make room for the next.
  print(speed_report.table(report))
  if config.output:
    say(speed_report.plot(report, pathlib.Path(config.output)))


def check(config: Config) -> None:
  """Raises UserError for what cannot be measured."""
  from jaxvid.config import nearest

  known = (*SYSTEMS, WATERFALL)
  for name in config.systems:
    if name not in known:
      raise UserError(f'no system {name!r}.{nearest(name, known)}')
  for part in config.parts:
    if part not in PARTS:
      raise UserError(f'no part {part!r}.{nearest(part, PARTS)}')
  if not config.systems or config.chunks < 2:
    raise UserError('name at least one system and time at least 2 chunks')
  if min(config.soak, config.budget) < 0:
    raise UserError('soak and budget are seconds, 0 or more')
  if config.output:
    files.check_writable(pathlib.Path(config.output))


def _systems(config: Config) -> list[tuple[str, Any]]:
  from jaxvid.tasks import speed_rig

  found = []
  for name in config.systems:
    if name == WATERFALL:
      found += speed_rig.WATERFALL.items()
    else:
      found.append((name, speed_rig.SYSTEMS[name]))
  if not config.decoder:
    return found
  return [
    (name, dataclasses.replace(system, decoder=config.decoder))
    for name, system in found
  ]


def _measure(
  config: Config,
  name: str,
  system: Any,
  row: dict[str, Any],
  deadline: float,
  write: Callable[[], None],
) -> None:
  """Fills `row` with figures, one part after the other."""
  from jaxvid.tasks import speed_measure as measure
  from jaxvid.tasks import speed_rig

  pixels = (config.height, config.width)
  say(f'{name}: random weights of size {config.size}')
  rig = speed_rig.build(system, config.size, pixels, config.speed)
  row |= describe(config, system, rig.settings)
  row |= speed_report.estimates(
    rig.settings,
    system.decoder,
    config.size,
    measure.machine()['device'],
    config.speed.precision,
  )
  parts: dict[str, Callable[[], dict[str, Any]]] = {
    'compile': lambda: measure.compiling(rig),
    'first_frame': lambda: measure.clip_and_first_frame(rig),
    'steady': lambda: measure.steady(rig, config.chunks),
    'ticks': lambda: measure.ticks_alone(rig, max(2, config.chunks // 2)),
    'decode': lambda: measure.decoding(rig, max(2, config.chunks // 2)),
    'switch': lambda: measure.prompt_switch(rig),
    'soak': lambda: measure.soak(rig, config.soak),
  }
  for part, run_part in parts.items():
    if part == 'soak' and not config.soak:
      continue
    if _wanted(config, part, deadline):
      say(f'{name}: {part}')
      row |= run_part() | measure.memory()
      write()
  if _wanted(config, 'text', deadline):
    say(f'{name}: text')
    row |= measure.text_encoding(rig, config.size)
  if {'text_encode_s', 'first_frame_s'} <= row.keys():
    row['first_frame_with_text_s'] = row['first_frame_s'] + row['text_encode_s']
  row |= speed_report.shares(row)
  write()


def _wanted(config: Config, part: str, deadline: float) -> bool:
  chosen = not config.parts or part in config.parts
  return chosen and time.monotonic() < deadline


def describe(config: Config, system: Any, settings: Any) -> dict[str, Any]:
  """What was run, for the report."""
  memory = settings.memory
  return {
    'size': config.size,
    'pixels': [config.height, config.width],
    'schedule': settings.schedule.name,
    'commit': system.commit,
    'memory': f'S{memory.sink}W{memory.window}',
    'chunk': memory.chunk,
    'decoder': system.decoder,
    'dtype': settings.dtype,
    'residual': settings.residual or settings.dtype,
    'fused': settings.fused,
    'deferred': settings.deferred,
    'backend': settings.backend,
  }


def _write(config: Config, report: dict[str, Any]) -> None:
  if config.output:
    files.write_json(config.output, report)
