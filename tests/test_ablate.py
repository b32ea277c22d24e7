"""Ablations are data: stages, what they share, and the report."""

import dataclasses
import json
import pathlib
import sys

import pytest
import test_comparison

from jaxvid import config as config_lib
from jaxvid import config_files, main
from jaxvid.diffusion import describe
from jaxvid.errors import UserError
from jaxvid.evaluation.comparison import Claim
from jaxvid.tasks import ablate, ablations, chain, train
from jaxvid.tasks.ablate import Arm, Config, Training
from jaxvid.training import report

ROOT = pathlib.Path(__file__).parent.parent
NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs' / 'ablations').glob('*.py')
  if path.stem != 'all'
  and not path.stem.startswith(('aapt', 'block', 'longlive'))
)


def load(name):
  made, _ = config_files.load_config(name)
  task = main.task_module(made.task)
  with made.unlocked():
    del made['task']
  config_lib.complete(task.Config, made)
  return task, made


@pytest.fixture
def config(tmp_path):
  return Config(
    name='speed',
    folder=str(tmp_path),
    trainings=(
      Training('a', 'a.py', ('loop.steps=3',), (0, 1)),
      Training('b', 'b.py', optional=True),
    ),
    arms=(
      Arm('a', 'a', ('stream.schedule=2',), x=2.0),
      Arm('again', 'a', ('stream.schedule=2',), x=3.0),
      Arm('b', 'b', published='T 1'),
    ),
    claims=(Claim('a over b', ('a',), ('b',), 'pace'),),
    columns=('pace',),
    curves=('pace',),
    axis='ticks',
  )


@pytest.fixture
def world(monkeypatch):
  """Stages that write what an evaluation would, and their names."""
  ran, fails = [], set()

  def execute(stage):
    ran.append(stage.name)
    if stage.name in fails:
      raise UserError('the loss is not finite')
    target = pathlib.Path(stage.outputs[0])
    if stage.name.startswith('train'):
      target.mkdir(exist_ok=True)
    if stage.name.startswith('measure'):
      found = test_comparison.measured(0.1 if '_a_' in stage.name else 0.0)
      target.parent.mkdir(exist_ok=True)
      target.write_text(json.dumps(found))

  monkeypatch.setattr(chain, '_execute', execute)
  monkeypatch.setattr(
    chain, 'settings_of', lambda s: chain.StageSettings(s.flags, [], [])
  )
  return ran, fails


def test_trainings_are_measured_once_and_reported(config, world, tmp_path):
  ran, _ = world
  ablate.run(config)
  assert ran[:3] == ['train_a_s0', 'train_a_s1', 'train_b_s0']
  # Two arms that ask for the same share it; two seeds, and the other one.
  assert len(ran) == 6
  text = (tmp_path / 'reports' / 'speed.md').read_text()
  assert '| a over b | **holds** |' in text and '| T 1 |' in text
  facts = json.loads((tmp_path / 'reports' / 'speed.json').read_text())
  assert facts['arms']['a']['seeds'] == [0, 1]
  assert facts['verdicts'][0]['answer'] == 'holds'
  ran.clear()
  ablate.run(config)
  assert not ran


def test_an_arm_more_leaves_what_is_done_alone(config, world):
  ran, _ = world
  ablate.run(config)
  ran.clear()
  more = Arm('a_3', 'a', ('stream.schedule=3',))
  arms = (config.arms[0], more, *config.arms[1:])
  ablate.run(dataclasses.replace(config, arms=arms))
  assert len(ran) == 2 and all(n.startswith('measure_a_s') for n in ran)
  ran.clear()
  changed = dataclasses.replace(config.trainings[0], overrides=())
  ablate.run(
    dataclasses.replace(config, trainings=(changed, config.trainings[1]))
  )
  assert [n for n in ran if '_b_' in n] == []
  assert {'train_a_s0', 'train_a_s1'} <= set(ran)


def test_a_collapse_is_a_row_not_measured(config, world, tmp_path, capsys):
  ran, fails = world
  fails.add('train_b_s0')
  ablate.run(config)
  assert not any(name.startswith('measure_b') for name in ran)
  text = (tmp_path / 'reports' / 'speed.md').read_text()
  assert '| a over b | **not measured** |' in text
  told = capsys.readouterr().err
  assert 'the loss is not finite' in told and 'left out, train_b_s0' in told
  fails.add('train_a_s0')
  again = dataclasses.replace(config, folder=str(tmp_path / 'other'))
  with pytest.raises(UserError, match='not finite'):
    ablate.run(again)


def test_report_alone_and_explain_run_nothing(config, world, tmp_path, capsys):
  ran, _ = world
  ablate.run(dataclasses.replace(config, report=True))
  assert not ran
  assert 'not measured: a, again, b' in capsys.readouterr().err
  ablate.run(dataclasses.replace(config, explain=True))
  assert not ran
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('stage 1/6 train_a_s0 (to be run): python -m')
  assert lines[-1].startswith('speed: 3 trainings, 3 measurements of 256')
  one = dataclasses.replace(config, seeds=(0,), explain=True)
  ablate.run(one)
  assert 'speed: 2 trainings, 2 meas' in capsys.readouterr().out


def test_plots_are_drawn_if_they_can_be(config, world, tmp_path, monkeypatch):
  pytest.importorskip('matplotlib')
  ablate.run(config)
  names = {path.name for path in (tmp_path / 'reports').glob('*.png')}
  assert names == {'speed_pace.png', 'speed_pace_by_chunk.png'}
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  ablate.run(config)
  assert '.png' not in (tmp_path / 'reports' / 'speed.md').read_text()


def test_losses_are_drawn_over_resumed_runs(config, world, tmp_path):
  pytest.importorskip('matplotlib')
  for start, last in ((0, 30), (20, 40)):
    summaries = report.Summaries(tmp_path / 'a_s0', start)
    for step in range(start + 10, last + 1, 10):
      summaries.scalars(step, {'loss': start + step})
    summaries.close()
    if not start:  # Files are named by the second.
      (file,) = (tmp_path / 'a_s0' / 'tensorboard').iterdir()
      file.rename(file.with_name('events.out.tfevents.1.host'))
  config = dataclasses.replace(config, losses=('loss', 'other'))
  ablate.run(config)
  told = report.read_scalars(tmp_path / 'a_s0')
  assert told == {'loss': [(10, 10), (20, 20), (30, 50), (40, 60)]}
  text = (tmp_path / 'reports' / 'speed.md').read_text()
  assert 'speed_loss_by_step.png' in text and 'other' not in text


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'arms': (Arm('a'), Arm('a'))}, 'different names'),
    ({'arms': (Arm('c', 'c'),)}, "no training 'c'"),
    ({'claims': (Claim('x', ('c',)),)}, "x: no arm 'c'"),
    ({'columns': ('speeds',)}, "no measure 'speeds'"),
    ({'curves': ('right',)}, "no measure 'right' of a chunk"),
    ({'curve_arms': ('c',)}, "curve_arms: no arm 'c'"),
  ],
)
def test_impossible_ablations(config, change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(config, **change)
  with pytest.raises(UserError, match='different seeds'):
    Training('a', 'a.py', seeds=(0, 0))


@pytest.fixture
def published(monkeypatch):
  monkeypatch.chdir(ROOT)
  made = {}
  for name in NAMES:
    _, settings = load(f'configs/ablations/{name}.py')
    made[name] = config_lib.from_dict(Config, settings)
  return made


def test_the_published_tables_fit_their_budget(published):
  stages = {
    stage.name: stage
    for config in published.values()
    for stage in ablate.stages_of(config)
  }
  trained = [name for name in stages if name.startswith('train_')]
  assert len(trained) <= 25
  used = {arm.training for c in published.values() for arm in c.arms}
  assert used == set(ablations.TRAININGS)
  made, _ = config_files.load_config('configs/ablations/all.py')
  assert {stage['name'] for stage in made.stages} == set(NAMES)


def test_every_arm_is_a_stream(published):
  for config in published.values():
    for arm in config.arms:
      options = dict(item.split('=', 1) for item in arm.evaluate)
      spec = describe.Spec(
        options['stream.schedule'], commit=options['stream.commit']
      )
      describe.build(spec)
  rows = {arm.name for arm in published['allocations'].arms}
  assert {'diagonal_3233343', 'self_4444444'} <= rows and len(rows) == 28


@pytest.mark.parametrize('name', sorted(ablations.TRAININGS))
def test_every_training_is_possible(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  (row,) = ablations.trainings('', name)
  task, made = load(row['config'])
  main.override(made, [f'--config.{o}' for o in row['overrides']])
  config = config_lib.from_dict(task.Config, made)
  assert task is train and config.distill is not None
