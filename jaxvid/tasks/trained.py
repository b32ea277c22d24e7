"""Whether a stream runs as its student was trained.

A few-step student knows the ticks, the context level and the memory of its
training; its weights say which (`training.distillation.model_config`). Others
are possible, so this warns and does not refuse.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from jaxvid import config as config_lib
from jaxvid.diffusion import describe
from jaxvid.diffusion import schedule as schedules
from jaxvid.diffusion.schedule import Schedule
from jaxvid.errors import UserNotice
from jaxvid.memory import MemoryConfig
from jaxvid.stream.stream import Settings
from jaxvid.tasks.bundle import Bundle


def warn(bundle: Bundle, settings: Settings, num_chunks: int) -> None:
  """One warning if a student is streamed as it was not trained to be.

  Args:
    bundle: the model.
    settings: of the stream.
    num_chunks: chunks of the stream that are looked at.
  """
  text = difference(bundle.head(), settings, num_chunks)
  if text:
    message = f'the student of {bundle.where} was trained with {text}'
    warnings.warn(message, UserNotice, stacklevel=2)


def difference(
  head: Mapping[str, Any], settings: Settings, num_chunks: int
) -> str:
  """`schedule 4322222 (commit last), not 5432222 (commit clean)`, or ''.

  Args:
    head: what the weights say of themselves; models that are no students say
      nothing of a schedule.
    settings: of the stream.
    num_chunks: chunks of the stream that are looked at.
  """
  if not isinstance(head.get('schedule'), Mapping):
    return ''
  spec = config_lib.from_dict(describe.Spec, head['schedule'])
  parts = [_schedule(head, spec, settings.schedule, num_chunks)]
  memory = head.get('memory')
  if isinstance(memory, Mapping) and not settings.schedule.bidirectional:
    parts.append(_memory(memory, settings.memory))
  return '; '.join(filter(None, parts))


def _schedule(
  head: Mapping[str, Any],
  spec: describe.Spec,
  asked: Schedule,
  num_chunks: int,
) -> str:
  """Compares ticks and context levels of every chunk."""
  known = describe.build(spec)
  digits = head.get('digits')
  chunks = range(num_chunks)
  if digits is None:  # Initialised, not distilled: each level by itself.
    levels = {t for i in chunks for t in asked.ticks(i)}
    same = levels <= set(known.levels())
    trained = f'time steps {_csv(known.levels())}'
  elif digits:
    options = schedules.digits(
      digits, spec.shift or 5.0, spec.commit or 'last', table=spec.table
    )
    same = {asked.row(i) for i in chunks} <= set(options.rows)
    same = same and asked.extra == options.extra
    trained = f'digits {digits} ({_commit(options)})'
  else:
    same = all(asked.row(i) == known.row(i) for i in chunks)
    same = same and asked.extra == known.extra
    trained = f'schedule {known.name} ({_commit(known)})'
  return '' if same else f'{trained}, not {asked.name} ({_commit(asked)})'


def _memory(known: Mapping[str, Any], asked: MemoryConfig) -> str:
  """Compares chunk, sink, window and positions."""
  names = ('chunk', 'sink', 'window', 'positions')
  pairs = {n: (known[n], getattr(asked, n)) for n in names if n in known}
  if known.get('bank') and asked.bank is None:
    pairs['bank'] = ('of past chunks', 'none')
  other = {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}
  if not other:
    return ''
  trained = ', '.join(f'{n} {pair[0]}' for n, pair in other.items())
  return f'{trained}, not {", ".join(str(now) for _, now in other.values())}'


def _commit(schedule: Schedule) -> str:
  if schedule.bidirectional:
    return 'no memory'
  if schedule.extra is None:
    return 'commit last'
  if schedule.extra == schedules.CLEAN:
    return 'commit clean'
  return f'extra tick at t {schedule.extra.t:g}'


def _csv(values) -> str:
  return ', '.join(f'{value:g}' for value in values)
