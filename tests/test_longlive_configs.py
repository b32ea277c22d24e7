"""LongLive's recipes, ablations and measurements fit together."""

import pathlib

import pytest

from jaxvid import config as config_lib
from jaxvid import config_files, main
from jaxvid.errors import UserError
from jaxvid.models.dit import WAN_1_3B
from jaxvid.tasks import ablate, longlive_ablations
from jaxvid.training import long_tuning

ROOT = pathlib.Path(__file__).parent.parent
ABLATIONS = sorted(
  path.stem for path in (ROOT / 'configs/ablations').glob('longlive_*.py')
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
  monkeypatch.chdir(ROOT)


def load(spec, overrides=()):
  config, _ = config_files.load_config(spec)
  task = main.task_module(config.task)
  with config.unlocked():
    del config['task']
  config_lib.complete(task.Config, config)
  main.override(config, [f'--config.{o}' for o in overrides])
  return config_lib.from_dict(task.Config, config)


# Clips of 21 latents, at size nano of 12.
@pytest.mark.parametrize(
  'size, seconds, clips',
  [('small', 60, 13), ('small', 240, 53), ('nano', 60, 26), ('nano', 240, 106)],
)
def test_stage_two_goes_on_from_stage_one(size, seconds, clips):
  first = load(f'configs/shapes/longlive_init.py:{size}')
  second = load(f'configs/shapes/longlive_long.py:{size},{seconds}')
  assert second.distill.weights.student == first.export
  for name in ('dit', 'schedule', 'sink', 'window', 'positions', 'rollout'):
    a, b = (getattr(c.distill, name) for c in (first, second))
    assert a == b, name
  assert (first.distill.sink, first.distill.window) == (3, 9)
  assert second.distill.long.latents == 4 * seconds
  assert long_tuning.clip_count(second.distill) == clips
  assert second.distill.lora and not first.distill.lora


def test_the_values_of_the_paper():
  first = load('configs/wan/longlive_init.py')
  second = load('configs/wan/longlive_long.py')
  distill = second.distill
  assert distill.weights.student == first.export
  assert distill.dit == WAN_1_3B
  assert (distill.lora.rank, distill.lora.alpha) == (256, 256.0)
  rates = second.loop.optimizer, distill.critic_optimizer
  assert [r.learning_rate for r in rates] == [1e-5, 2e-6]
  assert [(r.beta1, r.beta2) for r in rates] == [(0.0, 0.999)] * 2
  assert (distill.sink, distill.window, distill.chunk) == (3, 9, 3)
  assert (distill.data.batch, second.loop.ema_decay) == (64, 0.99)
  assert (second.loop.steps, distill.long.latents) == (3000, 240)
  # Switches at 21, 39, ..., 219 latents, 5 s to 55 s.
  assert long_tuning.clip_count(distill) == 13
  assert load('configs/wan/longlive_long.py:240').distill.long.latents == 960


def test_variants_differ_in_one_thing():
  base = load('configs/shapes/longlive_long.py:nano').distill
  assert load('configs/shapes/longlive_long.py:nano,full').distill.lora is None
  short = load('configs/shapes/longlive_long.py:nano,short').distill
  naive = load('configs/shapes/longlive_long.py:nano,naive').distill
  assert short.long is naive.long is None
  assert short.rollout == base.rollout
  assert naive.frames == base.long.latents
  plain = load('configs/shapes/longlive_long.py:nano,sink0').distill
  assert (plain.sink, plain.window) == (0, 12)
  with pytest.raises(UserError, match="no variant 'x'"):
    load('configs/shapes/longlive_long.py:nano,x')


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations_train_everything_that_they_start_from(name):
  config = load(f'configs/ablations/{name}.py')
  made = set()
  for stage in ablate.stages_of(config):
    told = dict(o.split('=', 1) for o in stage.overrides)
    if stage.name.startswith('train_'):
      start = told.get('distill.weights.student')
      assert start is None or start in made, stage.name
      made.add(told['export'])
      load(stage.config, stage.overrides)
    else:
      assert told['stream.weights'] in made
      measured = load(stage.config, stage.overrides)
      assert measured.stream.schedule == 'self_forcing'


def test_every_training_is_used():
  used = {
    arm.training
    for name in ABLATIONS
    for arm in load(f'configs/ablations/{name}.py').arms
  }
  assert used == set(longlive_ablations.TRAININGS)


@pytest.mark.parametrize('size', ['nano', 'small'])
@pytest.mark.parametrize('seconds', ['', ',240'])
def test_the_chain_fits_together(size, seconds):
  chain = load(f'configs/shapes/longlive_chain.py:{size}{seconds}')
  stages = {stage.name: stage for stage in chain.stages}
  loaded = {
    name: load(stage.config, stage.overrides) for name, stage in stages.items()
  }
  for name in ('init', 'long'):
    assert stages[name].outputs == (loaded[name].workdir,)
  assert loaded['long'].distill.weights.student == loaded['init'].export
  assert loaded['ship'].dit == loaded['long'].export
  after, before = loaded['measure_long'], loaded['measure_long_before']
  assert loaded['ship'].target.endswith(after.stream.weights)
  assert before.stream.weights == loaded['init'].export
  distill = loaded['long'].distill
  for config in (after, before, loaded['measure_switch']):
    assert config.stream.window == distill.window
    assert config.stream.sink == distill.sink
    assert config.stream.positions == distill.positions
    assert config.stream.schedule == distill.schedule.name
  assert after.stream.seconds == 240.0 and after.window == 10
  assert loaded['measure_switch'].clips == 512


def test_the_chain_that_tunes_the_student_of_the_demo_fits_together():
  chain = load('configs/shapes/longlive_chain.py:small,chunks')
  stages = {stage.name: stage for stage in chain.stages}
  loaded = {
    name: load(stage.config, stage.overrides) for name, stage in stages.items()
  }
  for name in ('init', 'pulses', 'long', 'more', 'again'):
    assert stages[name].outputs == (loaded[name].workdir,)
  used = set()
  for teacher, student in (
    ('init', 'long'),
    ('pulses', 'more'),
    ('pulses', 'again'),
  ):
    run = loaded[teacher]
    assert loaded[student].distill.weights.teacher == run.workdir
    used |= set(run.diffusion.data.latents.split(','))
  assert loaded['pulses'].loop.init_from == loaded['init'].workdir
  made = {loaded[n].target for n in stages if n.startswith('latents_')}
  assert made == used
  long, more = loaded['long'], loaded['more']
  assert more.distill.weights.student == long.export
  last = loaded['again']
  assert last.distill.weights.student == more.export != last.export
  assert loaded['ship'].dit == last.export
  assert loaded['ship'].target == 'jaxvid/weights/shapes_longlive'
  for name, weights in (('', 'longlive'), ('_before', 'diagdistill')):
    for what in ('long', 'switch'):
      stream = loaded[f'measure_{what}{name}'].stream
      assert stream.weights == f'shapes_{weights}'
      assert stream.schedule == long.distill.schedule.name
      assert stream.commit == long.distill.schedule.commit
  adapters = load('configs/shapes/longlive_long.py:small,chunks_lora').distill
  assert long.distill.lora is None and adapters.lora is not None
  assert adapters.weights == long.distill.weights
  # What teaches at size nano ships: nothing is trained for it.
  first = load('configs/shapes/longlive_chain.py:nano,chunks').stages[0]
  assert first.name == 'long'
