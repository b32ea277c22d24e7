"""Every config builds, is complete, and says how it is run."""

import ast
import pathlib

import pytest
from ml_collections import config_dict

from jaxvid import config as config_lib
from jaxvid import config_files, main

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (ROOT / 'configs').rglob('*.py')
  if path.name != '__init__.py'
)


@pytest.mark.parametrize('name', CONFIGS)
def test_config(name, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  assert main.main([f'--config={name}', '--help']) == 0
  shown = capsys.readouterr().out
  assert '\nkeys:\n' in shown
  config, doc = config_files.load_config(name)
  assert f'python -m jaxvid.main --config={name}' in ' '.join(doc.split())
  task = main.task_module(config.task)
  with config.unlocked():
    del config['task']
  # Required fields may be empty; all that is given has the right type.
  config_lib.complete(task.Config, config)
  # `--config.keys=...` would set nothing: it names a method of every config.
  keys = config_lib.flatten(config)
  names = {part for key in keys for part in key.split('.')}
  assert not names & set(dir(config_dict.ConfigDict))


@pytest.mark.parametrize('name', CONFIGS)
def test_config_imports_travel(name):
  """Configs are loaded from anywhere, so they import packages only."""
  tree = ast.parse((ROOT / name).read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0 and not node.module.startswith('configs')
