"""The command line: what users type, and one line for what is wrong."""

import dataclasses
import errno
import os
import pathlib
import re
import subprocess
import sys
import types
import warnings

import pytest

from jaxvid import __version__, main
from jaxvid.errors import UserNotice

ROOT = pathlib.Path(__file__).parent.parent

CONFIG = '''"""Says what it was given.

The command and its runtime.
"""
import ml_collections

def get_config(arg: str = 'small'):
  sizes = {'small': 8, 'big': 16}
  model = dict(dim=sizes[arg])
  return ml_collections.ConfigDict(dict(task='echo', model=model))
'''


@dataclasses.dataclass(frozen=True)
class Model:
  dim: int = 4
  rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Config:
  prompt: str = ''
  explain: bool = False
  seconds: float = 5
  steps: tuple[int, ...] = (1000,)
  memory_gb: float | None = None
  folder: str | None = None
  model: Model = Model()


@pytest.fixture
def echo(monkeypatch, tmp_path):
  """Runs the command line on a task that keeps its config."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'echo.py').write_text(CONFIG)
  monkeypatch.chdir(tmp_path)
  seen = []
  task = types.SimpleNamespace(Config=Config, run=seen.append)
  monkeypatch.setattr(main, 'task_module', lambda name: task)

  def call(*argv, spec='configs/echo.py'):
    return main.main([f'--config={spec}', *argv])

  call.seen, call.task = seen, task
  return call


def error_line(capsys) -> str:
  """The one line on stderr."""
  out, err = capsys.readouterr()
  assert not out
  lines = err.splitlines()
  assert len(lines) == 1, err
  assert lines[0].startswith('jaxvid: error: ')
  return lines[0].removeprefix('jaxvid: error: ')


def test_overrides_are_typed(echo):
  code = echo(
    '--config.prompt=a = "b"\nc',
    '--config.seconds=60',
    '--config.explain',
    '--config.steps=(1000,500)',
    '--config.memory_gb',
    '4',
    '--config.folder=12',
    '--config.model.rate=1e-3',
  )
  assert code == 0
  assert echo.seen == [
    Config(
      prompt='a = "b"\nc',
      seconds=60.0,
      explain=True,
      steps=(1000, 500),
      memory_gb=4.0,
      folder='12',
      model=Model(dim=8, rate=1e-3),
    )
  ]


def test_config_argument_and_negated_switch(echo):
  assert echo('--noconfig.explain', spec='configs/echo.py:big') == 0
  assert echo.seen == [Config(model=Model(dim=16))]


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--config.promt=x', 'unknown key config.promt. .* config.prompt?'),
    ('--config.model.dmi=1', 'unknown key .* config.model.dim?'),
    ('--config.dim=1', 'unknown key config.dim. .* config.model.dim?'),
    ('--config.model=1', 'config.model is a section.*config.model.dim'),
    ('--config.seconds=long', 'config.seconds=long: .*float'),
    ('--config.model.dim=1.5', 'config.model.dim=1.5: .*int'),
    ('--config.explain=maybe', "config.explain is true or false, not 'maybe'"),
    ('--config.steps=("a",)', r"config.steps\[0\]: expected int, got 'a'"),
    ('--config.prompt', 'config.prompt needs a value'),
    ('--noconfig.prompt', 'config.prompt is no switch'),
    ('--prompt=x', "unknown argument '--prompt'.*--config.KEY=VALUE"),
    ('video.mp4', "unknown argument 'video.mp4'"),
  ],
)
def test_bad_flags(echo, capsys, flag, message):
  assert echo(flag) == 2
  assert re.search(message, error_line(capsys))
  assert not echo.seen


@pytest.mark.parametrize(
  'spec, message',
  [
    ('configs/ehco.py', "no config file 'configs/ehco.py'.*configs/echo.py"),
    ('echo', 'Did you mean configs/echo.py'),
    ('configs/echo.py:huge', 'does not take \':huge\'|does not take ":huge"'),
    ('configs/broken.py', 'configs/broken.py: .*line 1'),
    ('configs/empty.py', 'has no function get_config'),
    ('configs/data.txt', 'not a Python file'),
    ('', 'needs a file'),
  ],
)
def test_bad_config_files(echo, capsys, spec, message):
  pathlib.Path('configs/broken.py').write_text('def get_config(:')
  pathlib.Path('configs/empty.py').write_text('')
  pathlib.Path('configs/data.txt').write_text('')
  assert echo(spec=spec) == 2
  assert re.search(message, error_line(capsys))


def test_no_config(capsys):
  assert main.main([]) == 2
  line = error_line(capsys)
  assert 'Usage: python -m jaxvid.main' in line
  assert '--config=configs/demo.py' in line


def test_unknown_task():
  with pytest.raises(main.UserError, match=r"'dataste'.* dataset\?"):
    main.task_module('dataste')
  with pytest.raises(main.UserError, match='no known task'):
    main.task_module(None)


def test_disk_and_keyboard(echo, capsys):
  def full(config):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'out.mp4')

  echo.task.run = full
  assert echo() == 2
  assert error_line(capsys) == 'No space left on device (out.mp4)'

  def stopped(config):
    raise KeyboardInterrupt

  echo.task.run = stopped
  assert echo() == 130

  def defect(config):
    raise OSError(errno.EIO, 'a defect keeps its traceback')

  echo.task.run = defect
  with pytest.raises(OSError, match='traceback'):
    echo()


def test_help_and_version(echo, capsys):
  assert main.main(['--version']) == 0
  assert capsys.readouterr().out == f'jaxvid {__version__}\n'
  assert main.main(['--help']) == 0
  out = capsys.readouterr().out
  assert 'usage: ' in out and re.search('echo.py +Says what it was', out)
  assert echo('--help') == 0
  out = capsys.readouterr().out
  assert 'The command and its runtime.' in out
  own, _, others = out.partition('\nkeys at their defaults:\n')
  assert '--config.model.dim=8' in own and '--config.' in others
  assert not echo.seen


def test_process_exit_codes():
  def call(*argv):
    return subprocess.run(
      [sys.executable, '-m', 'jaxvid.main', *argv],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )

  assert call('--version').returncode == 0
  wrong = call('--config=configs/nothing.py')
  assert wrong.returncode == 2
  assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.filterwarnings('default')
def test_notices_are_one_line_and_other_warnings_stay(monkeypatch, capsys):
  def run(argv):
    del argv
    warnings.warn('cut to 512 tokens', UserNotice, stacklevel=2)
    warnings.warn('a defect', RuntimeWarning, stacklevel=2)

  monkeypatch.setattr(main, 'run', run)
  shown = []
  monkeypatch.setattr(warnings, 'showwarning', lambda *args: shown.append(args))
  before = warnings.showwarning
  assert main.main([]) == 0
  assert capsys.readouterr().err == 'jaxvid: warning: cut to 512 tokens\n'
  ((message, *_),) = shown
  assert str(message) == 'a defect' and warnings.showwarning is before
