"""Config files: where they are found and how they are run."""

import importlib.util
import pathlib
import types

from jaxvid.config import nearest
from jaxvid.errors import UserError

PACKAGE = pathlib.Path(__file__).parent


def config_root() -> pathlib.Path:
  """The folder of default configs: in the wheel, or beside the sources."""
  packaged = PACKAGE / '_configs'
  return packaged if packaged.is_dir() else PACKAGE.parent / 'configs'


def available_configs() -> dict[str, pathlib.Path]:
  """Names as typed (`configs/demo.py`) -> files; the working directory wins."""
  found = {}
  for root in (config_root(), pathlib.Path('configs')):
    for path in sorted(root.rglob('*.py')):
      if path.name != '__init__.py':
        found[f'configs/{path.relative_to(root).as_posix()}'] = path
  return dict(sorted(found.items()))


def find_config(name: str) -> pathlib.Path:
  """File of a config name: the working directory first, then the package."""
  path = pathlib.Path(name)
  if path.is_file():
    return path
  configs = available_configs()
  if path.as_posix() in configs:
    return configs[path.as_posix()]
  raise UserError(f'no config file {name!r}.{nearest(name, configs)}')


def load_module(path: pathlib.Path) -> types.ModuleType:
  """Runs a config file; what is wrong with it is said in one line."""
  spec = importlib.util.spec_from_file_location('jaxvid_config', path)
  if spec is None or spec.loader is None:
    raise UserError(f'config file {path} is not a Python file (.py)')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (SyntaxError, ImportError, UnicodeDecodeError) as error:
    raise UserError(f'config file {path}: {error}') from error
  if not callable(getattr(module, 'get_config', None)):
    raise UserError(f'config file {path} has no function get_config')
  return module


def load_config(spec: str):
  """Loads `file.py` or `file.py:arg`.

  Returns:
    The ConfigDict made by the file's `get_config(arg)`, and its docstring.

  Raises:
    UserError: no such file, or an argument that it does not take.
  """
  from ml_collections import config_dict  # Needed on the command line only.

  name, colon, arg = spec.partition('.py:')
  name = name + '.py' if colon else spec
  module = load_module(find_config(name))
  if colon:
    try:
      config = module.get_config(arg)
    except (TypeError, KeyError, ValueError) as error:
      raise UserError(f'{name} does not take ":{arg}" ({error})') from error
  else:
    config = module.get_config()
  if not isinstance(config, config_dict.ConfigDict):
    raise UserError(f'{name}: get_config must return an ml_collections config')
  return config, module.__doc__ or ''
