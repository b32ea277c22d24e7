"""The command line: flags -> config -> task.

  python -m jaxvid.main --config=configs/demo.py --config.prompt="a red ball"

Kept short on purpose: what a task does lives in `jaxvid/tasks/`, where tests
and notebooks reach it. Nothing heavy is imported before the config is known
to be right, so a mistake is answered at once.
"""

import ast
import contextlib
import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

from jaxvid import __version__, config_files
from jaxvid import config as config_lib
from jaxvid.errors import UserError, UserNotice

USAGE = 'python -m jaxvid.main --config=configs/NAME.py[:ARG] [--config.KEY=V]'
_FLAG = re.compile(r'--?(no)?config(?:\.([^=]+))?(?:=(.*))?$', re.DOTALL)
_BOOLS = {'true', 't', '1', 'false', 'f', '0'}  # absl's
# The disk's fault or a path's, not ours: no traceback for these.
_FILE_ERRNOS = {
  errno.EACCES,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EISDIR,
  errno.ENAMETOOLONG,
  errno.ENOSPC,
  errno.ENOTDIR,
  errno.EPERM,
  errno.EROFS,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command line and returns its exit code.

  0 done, 2 bad input (one line on stderr), 130 stopped with Ctrl-C.
  """
  try:
    with _notices():
      run(sys.argv[1:] if argv is None else argv)
  except UserError as error:
    print(f'jaxvid: error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('jaxvid: stopped', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader left (`| head`); keep the shutdown flush quiet.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except OSError as error:
    if error.errno not in _FILE_ERRNOS:
      raise
    where = f' ({error.filename})' if error.filename else ''
    print(f'jaxvid: error: {error.strerror}{where}', file=sys.stderr)
    return 2
  return 0


@contextlib.contextmanager
def _notices() -> Iterator[None]:
  """Shows warnings that are meant for people as one line on stderr."""
  with warnings.catch_warnings():
    others = warnings.showwarning

    def show(message, category, *args, **kwargs) -> None:
      if issubclass(category, UserNotice):
        print(f'jaxvid: warning: {message}', file=sys.stderr, flush=True)
      else:
        others(message, category, *args, **kwargs)

    warnings.showwarning = show
    yield


def run(argv: Sequence[str]) -> None:
  """Parses the flags and runs the task; raises UserError on bad input."""
  spec, overrides, wants = split_flags(argv)
  if wants == 'version':
    print(f'jaxvid {__version__}')
    return
  if not spec:
    if wants == 'help':
      print(_help())
      return
    raise UserError(
      f'which config? Usage: {USAGE}, e.g. --config=configs/demo.py '
      '--config.prompt="a red circle moves left" (--help lists all)'
    )
  config, doc = config_files.load_config(spec)
  task = task_module(config.get('task', None))
  with config.unlocked():
    del config['task']
  own = set(config_lib.flatten(config))
  config_lib.complete(task.Config, config)
  if wants == 'help':
    print(_config_help(spec, config, own, doc))
    return
  override(config, overrides)
  keep_programs()
  task.run(config_lib.from_dict(task.Config, config))


def keep_programs() -> None:
  """Lets jax keep compiled programs on disk, for a quicker next start.

  In `$JAXVID_CACHE`, by default a folder among the user's caches; 'off' keeps
  none. Variables of jax itself that are set stay as they are. To be called
  before jax is imported, and inherited by processes that tasks start.
  """
  base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  folder = os.environ.get('JAXVID_CACHE') or f'{base}/jaxvid/programs'
  if folder == 'off':
    return
  values = {
    'JAX_COMPILATION_CACHE_DIR': folder,
    # With the choices of kernels that were timed, and quick compilations too.
    'JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES': 'all',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }
  for name, value in values.items():
    os.environ.setdefault(name, value)


def split_flags(argv: Sequence[str]) -> tuple[str, list[str], str]:
  """Splits a command line.

  Returns:
    The config file, the overrides as `--config.key=value` (or
    `--[no]config.key`), and 'help', 'version' or ''.
  """
  spec, overrides, wants = '', [], ''
  rest = list(argv)
  while rest:
    flag = rest.pop(0)
    match = _FLAG.match(flag)
    if flag in ('-h', '--help', '--helpfull', '-help'):
      wants = 'help'
    elif flag in ('--version', '-version'):
      wants = 'version'
    elif not match or (match[1] and not match[2]):
      name = flag.split('=')[0]
      hint = ' Settings are written --config.KEY=VALUE.'
      raise UserError(f'unknown argument {name!r}.{hint} Usage: {USAGE}')
    elif match[2]:
      if match[3] is None and rest and not rest[0].startswith('-'):
        flag = f'{flag}={rest.pop(0)}'
      overrides.append(flag)
    elif match[3]:
      spec = match[3]
    elif match[3] is None and rest and not rest[0].startswith('-'):
      spec = rest.pop(0)
    else:
      raise UserError(f'--config needs a file. Usage: {USAGE}')
  return spec, overrides, wants


def task_module(name):
  """The module `jaxvid.tasks.<name>`, imported only now."""
  folder = config_files.PACKAGE / 'tasks'
  # Helpers live beside the tasks; only a task can be run.
  tasks = [p.stem for p in folder.glob('*.py') if '\ndef run(' in p.read_text()]
  if name not in tasks:
    near = config_lib.nearest(str(name), tasks)
    raise UserError(f'the config has no known task ({name!r}).{near}')
  return importlib.import_module(f'jaxvid.tasks.{name}')


def override(config, overrides: Sequence[str]) -> None:
  """Applies `--config.key=value` to a ConfigDict, in place.

  ml_collections reads the values, typed by the present ones; keys are checked
  first, since it answers an unknown one with a traceback.
  """
  from absl import flags
  from ml_collections import config_flags

  keys = config_lib.flatten(config)
  for flag in overrides:
    match = _FLAG.match(flag)
    assert match is not None  # split_flags let nothing else through.
    negated, key, value = match.groups()
    if key not in keys:
      inside = [k for k in keys if k.startswith(key + '.')]
      if inside:
        raise UserError(
          f'config.{key} is a section; set its keys, e.g. --config.{inside[0]}'
        )
      near = config_lib.nearest(key, keys)
      near = near.replace('Did you mean ', 'Did you mean config.')
      raise UserError(f'unknown key config.{key}.{near}')
    if negated and not isinstance(keys[key], bool):
      raise UserError(f'config.{key} is no switch: write --config.{key}=...')
    if value is None and not isinstance(keys[key], bool):
      raise UserError(f'config.{key} needs a value: --config.{key}=...')
    if isinstance(keys[key], bool) and (value or 'true').lower() not in _BOOLS:
      raise UserError(f'config.{key} is true or false, not {value!r}')
  values = flags.FlagValues()
  argv = ['jaxvid', *overrides]
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=argv
  )
  try:
    values(argv)
    config.update_from_flattened_dict(
      config_flags.get_override_values(values['config'])
    )
  except (flags.Error, TypeError, ValueError) as error:
    message = str(error).replace('flag --', '').splitlines()[0]
    raise UserError(message) from error


def _help() -> str:
  """Usage and every config with the first line of its docstring."""
  lines = [f'usage: {USAGE}', '', 'configs (add --help for keys):']
  for name, path in config_files.available_configs().items():
    doc = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
    lines.append(f'  {name:32} {(doc or "").partition(chr(10))[0]}')
  lines += ['', 'flags: --help, --version']
  lines += ['JAXVID_CACHE: folder of compiled programs; off keeps none']
  return '\n'.join(lines)


def _config_help(spec: str, config, own: set[str], doc: str) -> str:
  """The config's docstring and its keys: its `own`, then all others."""
  rows = {True: ['keys:'], False: ['', 'keys at their defaults:']}
  for key, value in config_lib.flatten(config).items():
    rows[key in own].append(f'  --config.{key}={value!r}')
  return '\n'.join([spec, '', doc.strip(), '', *rows[True], *rows[False]])


if __name__ == '__main__':
  sys.exit(main())
