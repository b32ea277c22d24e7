"""Imports point down only, and heavy or optional ones wait for their use."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'jaxvid'

# Storeys of the house, upper ones first; a module imports what is below it.
STOREYS = [
  ['main'],
  ['tasks', 'config_files'],
  ['serving', 'evaluation', 'training', 'convert'],
  ['stream', 'objectives', 'quantization', 'data'],
  ['memory', 'diffusion', 'models'],
  ['ops'],
]
HEIGHT = {
  name: len(STOREYS) - i for i, names in enumerate(STOREYS) for name in names
}
# Leaves import nothing but `errors`; the number is who may use them.
LEAVES = {'errors': 0, 'parallel': HEIGHT['data']}
LEAVES |= dict.fromkeys(('config', 'storage'), HEIGHT['training'])

# The one step sideways: the network writes to and attends a memory object.
SIDEWAYS = {('models', 'memory')}

# Not needed to compute, so a machine with an accelerator need not have them.
OPTIONAL = ('ml_collections', 'tensorflow_datasets', 'grain', 'av')
OPTIONAL += ('tensorboardX', 'sentencepiece', 'ftfy', 'huggingface_hub')
OPTIONAL += ('matplotlib',)
COMPUTE = ('models', 'ops', 'memory', 'diffusion', 'stream', 'objectives')
COMPUTE += ('convert', 'parallel', 'storage')


def modules(*packages):
  """Paths of all modules, or those of some packages."""
  found = sorted(PACKAGE.rglob('*.py'))
  return [p for p in found if not packages or part(p) in packages]


def part(path: pathlib.Path) -> str:
  """The room a module is in: `jaxvid/models/dit.py` -> `models`."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def dotted(path: pathlib.Path) -> str:
  name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  return name.removesuffix('.__init__')


def imported(path: pathlib.Path) -> set[str]:
  """Full names imported anywhere in a module, also inside functions."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: write imports in full'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


@pytest.mark.parametrize('path', modules(), ids=dotted)
def test_imports_point_down(path):
  here = part(path)
  if here == '__init__':
    assert not imported(path)
    return
  for name in imported(path):
    if not name.startswith('jaxvid.') or name == 'jaxvid.__version__':
      continue
    there = name.split('.')[1]
    message = f'{dotted(path)} may not import {name}'
    if there == here:
      continue
    if here in LEAVES:
      assert there == 'errors', message
    elif there in LEAVES:
      assert HEIGHT[here] >= LEAVES[there], message
    else:
      down = HEIGHT[there] < HEIGHT[here]
      assert down or (here, there) in SIDEWAYS, message


@pytest.mark.parametrize('path', modules('models', 'ops'), ids=dotted)
def test_models_know_no_files_configs_or_devices(path):
  allowed = {'jax', 'flax', 'jaxvid', 'numpy', 'einops', 'dataclasses', 'math'}
  allowed |= {'functools', 'itertools', 're', 'typing', 'collections'}
  others = {n.split('.')[0] for n in imported(path)} - allowed
  assert not others


def run_python(code: str) -> str:
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_compute_needs_no_optional_package():
  """On a machine without data and video packages the models still load."""
  names = [dotted(path) for path in modules(*COMPUTE)]
  run_python(f"""
import importlib, sys
for name in {OPTIONAL}:
  sys.modules[name] = None
for name in {names}:
  importlib.import_module(name)
""")


def test_command_line_answers_before_jax_is_imported():
  loaded = run_python("""
import sys
import jaxvid.main
jaxvid.main.main(['--config=configs/nothing.py'])
print([name for name in ('jax', 'numpy', 'flax') if name in sys.modules])
""")
  assert loaded.strip() == '[]'
