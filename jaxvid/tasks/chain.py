"""Runs config after config, each in a process of its own, and remembers.

A file per stage in the chain's folder says with which settings it was begun
and whether it finished. Started again, the chain skips what is finished and
still there, and goes on where it stopped. A stage whose settings have changed,
or that follows one that has, begins anew: what it made before is moved aside,
not removed. A setting that came to be after a stage was begun changes nothing
by its default.
Stages follow one another, or those that they say they need.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from jaxvid.config import nearest
from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Stage:
  """One command of a chain.

  Attributes:
    name: of the stage.
    config: file, with its argument: `configs/shapes/teacher.py:small`.
    overrides: settings as typed, without `--config.`: `loop.steps=10`.
    outputs: folders and files that are this stage's alone.
    needs: earlier stages that this one builds on; none: the one before it.
    optional: its failure ends the stages that need it, not the chain.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  outputs: tuple[str, ...] = ()
  needs: tuple[str, ...] | None = None
  optional: bool = False

  def __post_init__(self):
    if not self.name.replace('_', '').replace('-', '').isalnum():
      raise UserError(
        f'the name of a stage may hold letters, digits, - and _: {self.name!r}'
      )

  @property
  def flags(self) -> list[str]:
    """What follows `python -m jaxvid.main`."""
    return [
      f'--config={self.config}',
      *(f'--config.{override}' for override in self.overrides),
    ]


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    workdir: of the chain; what it knows of its stages is kept there.
    stages: in order.
    start: stage to start at, whatever is known of those before; empty: the
      first that is not finished.
    stop: stage to stop after; empty: the last.
    changed: what to do where settings have changed since a stage was begun:
      'restart' moves its outputs aside, 'resume' goes on with them.
    explain: print the commands and what is known, and stop.
  """

  workdir: str
  stages: tuple[Stage, ...]
  start: str = ''
  stop: str = ''
  changed: Literal['restart', 'resume'] = 'restart'
  explain: bool = False

  def __post_init__(self):
    names = [stage.name for stage in self.stages]
    if not names or len(set(names)) < len(names):
      raise UserError(f'stages need different names, not {", ".join(names)!r}')
    for name, what in ((self.start, 'start at'), (self.stop, 'stop after')):
      if name and name not in names:
        raise UserError(f'no stage {name!r} to {what}.{nearest(name, names)}')
    if self.start and self.stop in names[: names.index(self.start)]:
      raise UserError(f'stage {self.stop!r} comes before {self.start!r}')
    for i, stage in enumerate(self.stages):
      for name in stage.needs or ():
        if name not in names[:i]:
          near = nearest(name, names[:i])
          raise UserError(
            f'stage {stage.name!r} needs {name!r}, no stage before it.{near}'
          )

  def needs(self, place: int) -> tuple[str, ...]:
    """Names of the stages that the stage at `place` builds on."""
    stage = self.stages[place]
    if stage.needs is not None:
      return stage.needs
    return (self.stages[place - 1].name,) if place else ()


def run(config: Config) -> None:
  """Runs what is not finished; the first failure ends the chain."""
  _described.cache_clear()
  names = [stage.name for stage in config.stages]
  first = names.index(config.start) if config.start else 0
  last = names.index(config.stop) + 1 if config.stop else len(names)
  folder = pathlib.Path(config.workdir)
  # All of them first: a slip in the last stage is found at once.
  keys = {s.name: settings_of(s) for s in config.stages[first:last]}
  digests = {s.name: _digest(_read(folder, s)) for s in config.stages[:first]}
  failed: set[str] = set()
  for place, stage in enumerate(config.stages[first:last], first):
    title = f'stage {place + 1}/{len(names)} {stage.name}'
    needs = config.needs(place)
    known = _read(folder, stage)
    # What an earlier stage made is part of a stage's settings, except where
    # the chain is started by hand.
    before = ' '.join(digests[name] for name in needs)
    if stage.name == config.start and known:
      before = known['settings']['after']
    now = keys[stage.name]
    settings = {'after': before, **now.since(known)}
    if known and known['settings'] != settings:
      why = _difference(known['settings'], settings)
      known, settings = None, {'after': before, **now.since(None)}
      if not config.explain:
        _renew(config, stage, title, why)
    digests[stage.name] = _digest({'settings': settings})
    done = bool(known and known['finished'])
    gone = [name for name in stage.outputs if not pathlib.Path(name).exists()]
    finished = done and not gone
    if config.explain:
      state = 'finished' if finished else 'to be run'
      print(f'{title} ({state}): {_command(stage)}')
    elif lacking := sorted(failed.intersection(needs)):
      say(f'{title}: left out, {", ".join(lacking)} failed')
      failed.add(stage.name)
    elif finished:
      say(f'{title}: finished before')
    else:
      if done:
        say(f'{title}: {gone[0]} is gone; once more')
      if not _attempt(folder, stage, settings, title):
        failed.add(stage.name)


def _attempt(
  folder: pathlib.Path, stage: Stage, settings: dict[str, Any], title: str
) -> bool:
  """Runs one stage and notes it; False for an optional one that failed."""
  say(f'{title}: {_command(stage)}')
  _write(folder, stage, settings, finished=False)
  try:
    _execute(stage)
  except UserError as error:
    if not stage.optional:
      raise
    say(f'{title}: {error}')
    return False
  _write(folder, stage, settings, finished=True)
  return True


class StageSettings(NamedTuple):
  """What a stage is run with, as lines `--config.KEY=VALUE`.

  Attributes:
    flags: of its command.
    keys: settings that its config file names.
    defaults: all others.
  """

  flags: list[str]
  keys: list[str]
  defaults: list[str]

  def since(self, known: dict[str, Any] | None) -> dict[str, list[str]]:
    """Those that count for a stage that was begun, as its file knows them."""
    keys = self.keys + self.defaults
    if known:
      now = {_key(line): line for line in keys}
      old = [_key(line) for line in known['settings']['keys']]
      keys = [now[key] for key in old if key in now]
      keys += [line for line in self.keys if _key(line) not in old]
    return {'flags': self.flags, 'keys': keys}


def _key(line: str) -> str:
  return line.split('=')[0].removeprefix('--config.')


def settings_of(stage: Stage) -> StageSettings:
  """A stage's flags and every setting of its config file.

  The program itself is asked (`--help`), so that a stage is known to exist,
  and to take its settings, before the chain begins.

  Raises:
    UserError: what the program says is wrong with it.
  """
  code, text = _described(stage.config)
  if code:
    raise UserError(f'stage {stage.name!r}: {text}')
  own, _, others = text.partition('\n\nkeys at their defaults:\n')
  keys, defaults = (
    [line.strip() for line in part.splitlines()] for part in (own, others)
  )
  names = [_key(line) for line in keys + defaults]
  for override in stage.overrides:
    name = override.split('=')[0]
    if name not in names:
      raise UserError(
        f'stage {stage.name!r}: unknown key {name}.{nearest(name, names)}'
      )
  return StageSettings(stage.flags, keys, defaults)


@functools.lru_cache(maxsize=256)
def _described(config: str) -> tuple[int, str]:
  """What the program says of a config: 0 and its keys, or what is wrong."""
  done = subprocess.run(
    [sys.executable, '-m', 'jaxvid.main', f'--config={config}', '--help'],
    capture_output=True,
    text=True,
  )
  if done.returncode:
    message = done.stderr.strip().split('error: ', 1)[-1]
    return done.returncode, message.splitlines()[-1]
  return 0, done.stdout.rpartition('\nkeys:\n')[2]


def _command(stage: Stage) -> str:
  return shlex.join(['python', '-m', 'jaxvid.main', *stage.flags])


def _marker(folder: pathlib.Path, stage: Stage) -> pathlib.Path:
  return folder / f'{stage.name}.json'


def _read(folder: pathlib.Path, stage: Stage) -> dict[str, Any] | None:
  """What is known of a stage, if it was ever begun."""
  file = _marker(folder, stage)
  if not file.exists():
    return None
  try:
    known = json.loads(file.read_text(encoding='utf-8'))
    if not {'after', 'flags', 'keys'} <= set(known['settings']):
      raise ValueError('incomplete')
    return {'finished': known['finished'], 'settings': known['settings']}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{file} is damaged; remove it') from error


def _write(
  folder: pathlib.Path, stage: Stage, settings: dict[str, Any], finished: bool
) -> None:
  text = json.dumps({'finished': finished, 'settings': settings}, indent=1)
  with files.replacing(_marker(folder, stage)) as file:
    file.write((text + '\n').encode())


def _digest(known: dict[str, Any] | None) -> str:
  """Stands for a stage and all before it; '' if it was never begun."""
  if known is None:
    return ''
  text = json.dumps(known['settings'], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
  """What has changed, in words."""
  lines = set(new['keys'] + new['flags']) ^ set(old['keys'] + old['flags'])
  names = sorted({line.split('=')[0].removeprefix('--') for line in lines})
  if names:
    more = ', ...' if len(names) > 4 else ''
    return f'other settings ({", ".join(names[:4])}{more})'
  return 'an earlier stage was made anew'


def _renew(config: Config, stage: Stage, title: str, why: str) -> None:
  """Moves aside what a stage made with other settings, unless told not to."""
  if config.changed == 'resume':
    say(f'{title}: {why}; goes on with what is there')
    return
  for name in stage.outputs:
    path = pathlib.Path(name)
    if path.exists():
      aside = _free_name(path)
      with files.naming(aside):
        path.rename(aside)
      say(f'{title}: {why}; {path} is now {aside}')


def _free_name(path: pathlib.Path) -> pathlib.Path:
  number = 1
  while (free := path.with_name(f'{path.name}.old{number}')).exists():
    number += 1
  return free


def _execute(stage: Stage) -> None:
  """Runs one stage to its end.

  Raises:
    UserError: it failed.
    KeyboardInterrupt: it was stopped with Ctrl-C.
  """
  command = [sys.executable, '-m', 'jaxvid.main', *stage.flags]
  # A session of its own: Ctrl-C reaches this process alone, which hands it on
  # once. A training that hears it twice leaves without saving.
  with subprocess.Popen(command, start_new_session=True) as process:
    with _handed_on(process) as received:
      code = process.wait()
  if received:
    if received[0] == signal.SIGINT:
      raise KeyboardInterrupt
    raise SystemExit(128 + received[0])
  if code in (130, -signal.SIGINT):
    raise KeyboardInterrupt
  if code:
    raise UserError(
      f'stage {stage.name!r} failed with exit code {code}; what is done is '
      'kept: mend it and start the chain again'
    )


@contextlib.contextmanager
def _handed_on(process: subprocess.Popen) -> Iterator[list[int]]:
  """Hands Ctrl-C and SIGTERM on to the stage and remembers them."""
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield received
    return

  def hand_on(number, frame):
    del frame
    received.append(number)
    process.send_signal(number)

  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.signal(number, hand_on) for number in numbers}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
