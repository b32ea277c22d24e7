"""What a change of the prompt costs: measured by rounds, said in a line."""

import json

import pytest

from jaxvid.errors import UserError
from jaxvid.tasks import generate, switch_cost
from jaxvid.tasks.compare import System

STREAM = generate.Config(
  schedule='1', commit='clean', sink=1, window=4, chunk=2, decoder='vae'
)


def test_rows_hold_the_share_that_is_added(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  config = switch_cost.Config(
    systems=(System('one', STREAM),),
    caches=('recache', 'keep'),
    random='nano',
    seconds=0.5,
    repeats=2,
    target=50.0,
    output=str(tmp_path / 'cost.json'),
  )
  switch_cost.run(config)
  lines = capsys.readouterr().out.splitlines()
  assert (
    lines[0].startswith('one, recache: ') and 'target 5000 % met' in lines[0]
  )
  assert lines[1].startswith('one, keep: ') and 'target' not in lines[1]
  rows = json.loads((tmp_path / 'cost.json').read_text())['rows']
  assert [row['cache'] for row in rows] == ['recache', 'keep']
  assert all(row['added']['count'] == 2 for row in rows)


def test_impossible_measurements_are_refused():
  with pytest.raises(UserError, match='at least'):
    switch_cost.Config(systems=())
  with pytest.raises(UserError, match="not 'forget'"):
    switch_cost.Config(systems=(System('a', STREAM),), caches=('forget',))
