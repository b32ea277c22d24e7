"""Chains of configs: in order, resumed anywhere, stopped cleanly."""

import dataclasses
import http.server
import json
import signal
import sys
import threading

import processes
import pytest

from jaxvid import main
from jaxvid.errors import UserError
from jaxvid.tasks import chain
from jaxvid.tasks.chain import Config, Stage


class World:
  """Three stages that are noted instead of run.

  Attributes:
    keys: settings of each.
    ran: names of those that ran, in order.
    fails: names of those that fail.
    config: of their chain.
  """

  def __init__(self, folder):
    self.keys = {name: ['--config.x=1'] for name in 'abc'}
    self.ran, self.fails, self.folder = [], set(), folder
    self.defaults = ['--config.y=0']
    self.config = Config(
      workdir=str(folder / 'chain'),
      stages=tuple(
        Stage(name, f'{name}.py', (), (str(folder / name),)) for name in 'abc'
      ),
    )

  def run(self, **changes):
    self.ran.clear()
    chain.run(dataclasses.replace(self.config, **changes))
    return ''.join(self.ran)

  def execute(self, stage):
    self.ran.append(stage.name)
    if stage.name in self.fails:
      raise UserError(f'stage {stage.name!r} failed')
    (self.folder / stage.name).mkdir(exist_ok=True)

  def settings_of(self, stage):
    keys, defaults = self.keys[stage.name], self.defaults
    return chain.StageSettings(stage.flags, keys, defaults)


@pytest.fixture
def world(tmp_path, monkeypatch):
  world = World(tmp_path)
  monkeypatch.setattr(chain, '_execute', world.execute)
  monkeypatch.setattr(chain, 'settings_of', world.settings_of)
  return world


def test_finished_stages_are_not_run_again(world, capsys):
  assert world.run() == 'abc'
  assert world.run() == ''
  assert 'stage 3/3 c: finished before' in capsys.readouterr().err


def test_a_stage_whose_output_is_gone_is_run_again(world, tmp_path, capsys):
  world.run()
  (tmp_path / 'b').rmdir()
  world.run(explain=True)
  assert 'stage 2/3 b (to be run)' in capsys.readouterr().out
  # What was made from it is as good as before.
  assert world.run() == 'b'
  told = capsys.readouterr().err
  assert f'stage 2/3 b: {tmp_path / "b"} is gone; once more' in told
  assert world.run() == ''


def test_a_setting_that_came_to_be_later_changes_nothing_by_its_default(world):
  assert world.run() == 'abc'
  world.defaults = ['--config.new=0', '--config.y=0', '--config.z=1']
  assert world.run() == ''
  world.keys['c'] = ['--config.x=1', '--config.new=1']
  assert world.run() == 'c'
  world.defaults = ['--config.new=0', '--config.y=1']
  assert world.run() == 'abc'


def test_a_chain_goes_on_at_the_stage_that_failed(world):
  world.fails.add('b')
  with pytest.raises(UserError, match="stage 'b' failed"):
    world.run()
  assert world.ran == ['a', 'b']
  world.fails.clear()
  assert world.run() == 'bc'


def test_a_change_begins_a_stage_and_all_after_it_anew(world, tmp_path, capsys):
  world.run()
  world.keys['b'] = ['--config.x=2']
  assert world.run() == 'bc'
  # What they made before is still there, and stage a was left alone.
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'a', 'b', 'c', 'b.old1', 'c.old1', 'chain'}
  told = capsys.readouterr().err
  assert 'stage 2/3 b: other settings (config.x); ' in told
  assert 'stage 3/3 c: an earlier stage was made anew; ' in told
  assert world.run() == ''
  world.keys['c'] = []
  assert world.run() == 'c'
  assert (tmp_path / 'c.old2').exists()


def test_a_change_that_came_while_a_stage_was_under_way(world, tmp_path):
  world.run()
  world.fails.add('b')
  world.keys['b'] = ['--config.x=2']
  with pytest.raises(UserError):
    world.run()
  world.fails.clear()
  assert world.run() == 'bc'
  # Begun with these settings: its outputs are its own and stay.
  assert not (tmp_path / 'b.old2').exists()


def test_changed_settings_may_go_on_with_what_is_there(world, tmp_path):
  world.run()
  world.keys['b'] = ['--config.x=2']
  assert world.run(changed='resume') == 'bc'
  assert not (tmp_path / 'b.old1').exists()
  assert world.run() == ''


def test_a_chain_may_start_anywhere(world):
  assert world.run(start='b') == 'bc'
  assert world.run(start='b') == ''
  assert world.run(start='c') == ''
  # Now that stage a was made after all, what follows it is out of date.
  assert world.run() == 'abc'
  world.keys['a'] = []
  assert world.run(start='b') == ''
  assert world.run() == 'abc'


def test_explain_tells_and_does_nothing(world, capsys, tmp_path):
  assert world.run(explain=True) == ''
  assert not (tmp_path / 'chain').exists()
  world.run()
  world.keys['b'] = []
  capsys.readouterr()
  assert world.run(explain=True) == ''
  assert capsys.readouterr().out.splitlines() == [
    'stage 1/3 a (finished): python -m jaxvid.main --config=a.py',
    'stage 2/3 b (to be run): python -m jaxvid.main --config=b.py',
    'stage 3/3 c (to be run): python -m jaxvid.main --config=c.py',
  ]
  assert (tmp_path / 'b').exists()


def test_impossible_chains(world, tmp_path):
  with pytest.raises(UserError, match="no stage 'd' to start at"):
    world.run(start='d')
  with pytest.raises(UserError, match='need different names'):
    Config('x', (Stage('a', 'a.py'), Stage('a', 'b.py')))
  with pytest.raises(UserError, match='may hold letters'):
    Stage('a/b', 'a.py')
  world.run()
  (tmp_path / 'chain' / 'b.json').write_text('{"finished": true}')
  with pytest.raises(UserError, match=r'b.json is damaged; remove it'):
    world.run()


CONFIG = '''
"""A chain of two filters."""

from ml_collections import config_dict


def get_config(arg=''):
  return config_dict.ConfigDict({
    'task': 'chain',
    'workdir': 'WORK/chain',
    'stages': [
      {'name': name, 'config': 'configs/prompts.py',
       'overrides': [f'source=WORK/{source}', f'target=WORK/{name}.txt',
                     *more]}
      for name, source, more in STAGES
    ],
  })
'''
FILTERS = [
  ('long', 'list.txt', ['filter.min_words=4']),
  ('all', 'long.txt', []),
]


def write(folder, stages):
  """Writes a chain of the prompts task, quick and without models."""
  (folder / 'list.txt').write_text('a red fox\na red fox jumps\n')
  text = CONFIG.replace('STAGES', repr(stages)).replace('WORK', str(folder))
  (folder / 'chain.py').write_text(text)
  return f'--config={folder}/chain.py'


def test_stages_are_processes_of_their_own(tmp_path, capfd):
  assert main.main([write(tmp_path, FILTERS)]) == 0
  assert (tmp_path / 'all.txt').read_text() == 'a red fox jumps\n'
  marker = json.loads((tmp_path / 'chain' / 'all.json').read_text())
  assert marker['finished']
  assert '--config.filter.min_words=3' in marker['settings']['keys']
  capfd.readouterr()
  (tmp_path / 'long.txt').unlink()
  (tmp_path / 'chain' / 'all.json').unlink()
  assert main.main([write(tmp_path, FILTERS)]) == 2
  lines = capfd.readouterr().err.splitlines()
  assert any('long: finished before' in line for line in lines)
  assert any('long.txt: No such file' in line for line in lines)
  assert lines[-1] == (
    "jaxvid: error: stage 'all' failed with exit code 2; what is done is kept: "
    'mend it and start the chain again'
  )


@pytest.mark.parametrize(
  ('stage', 'message'),
  [
    (Stage('a', 'configs/prmpts.py'), "stage 'a': no config file .*prompts.py"),
    (
      Stage('a', 'configs/prompts.py', ('filter.min_word=3',)),
      "stage 'a': unknown key filter.min_word. Did you mean filter.min_words",
    ),
  ],
)
def test_a_slip_is_found_before_anything_runs(stage, message, tmp_path):
  with pytest.raises(UserError, match=message):
    chain.run(Config(str(tmp_path / 'chain'), (stage,)))
  assert not (tmp_path / 'chain').exists()


def test_ctrl_c_stops_stage_and_chain(tmp_path):
  asked = threading.Event()

  class Silent(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      asked.set()
      self.rfile.read()  # until the client has left

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Silent)
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  url = f'http://127.0.0.1:{server.server_port}'
  slow = [f'chat.base_url={url}', 'chat.model=x']
  try:
    flag = write(tmp_path, [('slow', 'list.txt', slow), *FILTERS])
    argv = [sys.executable, '-m', 'jaxvid.main', flag]
    with processes.started(argv) as process:
      assert asked.wait(120)
      process.send_signal(signal.SIGINT)
      out, err = process.communicate(timeout=120)
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
  assert process.returncode == 130
  assert not out and err.splitlines()[-1] == 'jaxvid: stopped'
  marker = json.loads((tmp_path / 'chain' / 'slow.json').read_text())
  assert not marker['finished']
  assert not (tmp_path / 'chain' / 'long.json').exists()


def test_stages_may_say_what_they_build_on(world):
  a, b, c = world.config.stages
  c = dataclasses.replace(c, needs=('a',))
  world.config = dataclasses.replace(world.config, stages=(a, b, c))
  assert world.run() == 'abc'
  world.keys['b'] = ['--config.x=2']
  assert world.run() == 'b'
  world.keys['a'] = ['--config.x=2']
  assert world.run() == 'abc'
  with pytest.raises(UserError, match="'a' needs 'c', no stage before it"):
    Config('x', (dataclasses.replace(a, needs=('c',)), c))


def test_an_optional_stage_may_fail(world, capsys):
  a, b, c = world.config.stages
  b = dataclasses.replace(b, optional=True)
  last = Stage('d', 'd.py', needs=('a',))
  world.keys['d'] = []
  world.config = dataclasses.replace(world.config, stages=(a, b, c, last))
  world.fails.add('b')
  assert world.run() == 'abd'
  assert 'stage 3/4 c: left out, b failed' in capsys.readouterr().err
  world.fails.clear()
  assert world.run() == 'bc'


def test_a_chain_may_stop_anywhere(world):
  assert world.run(stop='b') == 'ab'
  assert world.run() == 'c'
  with pytest.raises(UserError, match="no stage 'd' to stop after"):
    world.run(stop='d')
  with pytest.raises(UserError, match="'a' comes before 'b'"):
    world.run(start='b', stop='a')
