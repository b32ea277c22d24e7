"""Notebooks run from top to bottom, with little to train."""

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
# What makes a notebook slow -> what a test can wait for.
SHORTER = {'STEPS = 300': 'STEPS = 2', 'SECONDS = 5': 'SECONDS = 0.5'}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  notebook = json.loads(path.read_text())
  assert notebook['nbformat'] == 4
  names = {'__name__': path.stem}
  for cell in notebook['cells']:
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
      continue
    assert not cell['outputs'] and cell['execution_count'] is None
    for slow, quick in SHORTER.items():
      source = source.replace(slow, quick)
    exec(compile(source, f'{path.name} {cell["id"]}', 'exec'), names)
