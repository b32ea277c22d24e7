"""The paired comparison of two evaluations, as a command."""

import json
import sys

import pytest

from benchmarks import paired


@pytest.fixture
def report(tmp_path):
  def write(name, clips, **settings):
    path = tmp_path / name
    path.write_text(
      json.dumps({'settings': settings, 'values': {'clips': clips}})
    )
    return str(path)

  return write


def _run(monkeypatch, *files):
  monkeypatch.setattr(sys, 'argv', ['paired.py', *files])
  paired.main()


def test_differences_are_taken_clip_by_clip(report, monkeypatch, capsys):
  a = report('a.json', {'shape': [1, 0, 1, None], 'met': [1, 1, 0, 0]})
  b = report('b.json', {'shape': [1, 1, 1, 1], 'other': [1, 2, 3, 4]})
  _run(monkeypatch, a, b)
  first, second = capsys.readouterr().out.splitlines()
  # The fourth clip has no shape to be read in the first report.
  assert 'shape 66.7 ' in first and 'met 50.0 ' in first
  assert 'shape 33.3 ' in second and 'met' not in second


def test_reports_that_do_not_pair_are_refused(report, monkeypatch, capsys):
  a = report('a.json', {'shape': [1]}, seed=0)
  others = {
    report('b.json', {'shape': [1]}, seed=1): 'b.json has seed=1, the first 0',
    report('c.json', {'other': [1]}, seed=0): 'c.json has no verdicts by clip',
    'nowhere.json': 'nowhere.json: No such file',
  }
  for file, message in others.items():
    with pytest.raises(SystemExit) as error:
      _run(monkeypatch, a, file)
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
