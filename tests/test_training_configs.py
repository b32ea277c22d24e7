"""The training configs of the shapes world fit their tasks."""

import pytest

from jaxvid import config as config_lib
from jaxvid import config_files
from jaxvid.errors import UserError
from jaxvid.main import task_module
from jaxvid.models.dit import WAN_1_3B
from jaxvid.training import ode


def load(spec):
  config, _ = config_files.load_config(spec)
  task = task_module(config.task)
  with config.unlocked():
    del config['task']
  config_lib.complete(task.Config, config)
  return config_lib.from_dict(task.Config, config)


@pytest.mark.parametrize('size', ['nano', 'small', 'base'])
def test_stages_chain_from_one_to_the_next(size):
  short, *later = (
    load(f'configs/shapes/teacher.py:{size},{stage}')
    for stage in ('short', 'forced', 'refined')
  )
  before = short
  for stage in later:
    assert stage.loop.init_from == before.workdir
    assert stage.diffusion.dit == short.diffusion.dit
    before = stage
  first, long, causal = (
    load(f'configs/shapes/causal.py:{size}{stage}')
    for stage in (',first', ',long', '')
  )
  if size == 'nano':  # Has no teacher before it.
    assert first.loop.init_only == '^text/'
    assert (
      first.diffusion.text
      == load('configs/shapes/causal.py:small').diffusion.text
    )
  else:
    assert first.loop.init_from == later[1].workdir
  assert long.loop.init_from == first.workdir
  assert causal.loop.init_from == long.workdir
  whole = load(f'configs/shapes/teacher.py:{size},long')
  assert whole.loop.init_from == causal.workdir
  assert whole.diffusion.dit == causal.diffusion.dit
  assert whole.diffusion.flow.forcing == 'none'
  assert short.diffusion.dit == causal.diffusion.dit
  assert short.diffusion.flow.forcing == 'none'
  assert causal.diffusion.flow.forcing == 'teacher'


def test_latents_are_cached_where_training_looks():
  pixels = {'nano': 64, 'base': 128}
  for size, side in pixels.items():
    for length in ('short', 'long'):
      cache = load(f'configs/shapes/latents.py:{length},{side}')
      training = load(f'configs/shapes/teacher.py:{size},{length}')
      assert training.diffusion.data.latents == cache.target
      frames = training.diffusion.data.frames
      assert cache.frames == 4 * frames - 3
      assert cache.scenes.height == side
    causal = load(f'configs/shapes/causal.py:{size}').diffusion.data
    caches = (
      load(f'configs/shapes/latents.py:{length},{side}').target
      for length in ('long', 'turns', 'scripts')
    )
    assert causal.latents == ','.join(caches)


@pytest.mark.parametrize('size', ['nano', 'small', 'base'])
@pytest.mark.parametrize('variant', ['', ',causal', ',causvid'])
def test_students_begin_where_pairs_and_models_are(size, variant):
  pairs = load(f'configs/shapes/ode_pairs.py:{size}{variant}')
  student = load(f'configs/shapes/ode.py:{size}{variant}')
  causal = load(f'configs/shapes/causal.py:{size}')
  long = load(f'configs/shapes/teacher.py:{size},long')
  source = causal.workdir if variant == ',causal' else long.workdir
  if (size, variant) == ('nano', ',causal'):
    source = 'jaxvid/weights/shapes/model'  # The model that ships.
  assert pairs.weights == source
  assert student.ode.weights == causal.workdir
  assert student.ode.pairs == pairs.target
  assert student.ode.frames <= pairs.frames
  assert student.ode.dit == causal.diffusion.dit
  assert (student.ode.form == 'causal') == (pairs.source == 'causal')
  stored = ode.student_levels(pairs.schedule)
  assert set(student.ode.levels) <= set(stored)
  # What the distillations ask of the student, they have learnt here.
  recipes = {'': ('diagdistill', 'self_forcing'), ',causvid': ('causvid',)}
  for recipe in recipes.get(variant, ()):
    distilled = load(f'configs/shapes/{recipe}.py:{size}').distill
    assert set(ode.student_levels(distilled.schedule)) <= set(stored)


def test_other_initialisers_begin_there_too():
  consistency = load('configs/shapes/consistency.py:nano')
  causal = load('configs/shapes/causal.py:nano')
  assert consistency.consistency.weights == causal.workdir
  assert (
    consistency.consistency.data.latents
    == 'data/latents/long_64,data/latents/turns_64'
  )


@pytest.mark.parametrize('variant', ['', ':causvid'])
def test_wan_students_learn_from_wan_pairs(variant):
  pairs = load(f'configs/wan/ode_pairs.py{variant}')
  student = load(f'configs/wan/ode.py{variant}')
  assert student.ode.pairs == pairs.target
  assert student.ode.levels == ode.student_levels(pairs.schedule)
  assert student.ode.dit == WAN_1_3B


@pytest.mark.parametrize('recipe', ['diagdistill', 'self_forcing', 'causvid'])
@pytest.mark.parametrize('arg', ['nano,{}', 'small,{}', 'small,{},chunks'])
def test_the_chain_fits_together(recipe, arg):
  stages = {
    s.name: s
    for s in load(f'configs/shapes/chain.py:{arg.format(recipe)}').stages
  }
  assert list(stages)[-4:] == ['ode', recipe, 'ship', 'evaluate']
  loaded = {
    name: load(stage.config)
    for name, stage in stages.items()
    if name != 'evaluate'
  }
  for name, task in loaded.items():
    if name.startswith(('teacher', 'causal', 'ode', recipe)):
      made = task.target if name == 'ode_pairs' else task.workdir
      assert stages[name].outputs == (made,)
  told = dict(
    o.split('=', 1) for n in (recipe, 'evaluate') for o in stages[n].overrides
  )
  distilled, causal = loaded[recipe].distill, loaded['causal'].workdir
  if arg == 'small,{}':
    assert told['distill.weights.student'] == loaded['ode'].export
    assert loaded['ship'].dit == loaded[recipe].export
    teacher = loaded['teacher_long'].workdir
  else:
    assert distilled.weights.student == loaded['ode'].export
    assert loaded['ship'].dit == told['export']
    assert 'teacher_long' not in stages
    # Another critic than the teacher only where their sizes differ.
    assert (distilled.weights.critic or distilled.weights.teacher) == causal
    nano = arg.startswith('nano')  # Its teacher is the model that ships.
    teacher = 'jaxvid/weights/shapes/model' if nano else causal
    assert loaded['ode_pairs'].weights == teacher
  assert ('teacher_short' in stages) == arg.startswith('small')
  assert distilled.weights.teacher == teacher
  assert loaded['ode'].ode.weights == causal
  assert told['stream.schedule'] == distilled.schedule.name
  assert told['stream.sink'] == str(distilled.sink)
  assert told['stream.window'] == str(distilled.window)
  assert told['stream.positions'] == distilled.positions
  assert told['stream.weights'] in loaded['ship'].target


@pytest.mark.parametrize(
  'spec, start',
  [
    ('self_forcing.py:train', ''),
    ('self_forcing.py:train,frame', ''),
    ('causvid.py:train', 'causvid'),
    ('diagdistill.py:train', ''),
    ('diagdistill.py:train,release', ''),
    ('diagdistill.py:train,frame', ''),
    ('diagdistill.py:train,digits', ''),
  ],
)
def test_wan_students_are_those_of_the_shapes_world_at_full_size(spec, start):
  wan = load(f'configs/wan/{spec}')
  twin = 'small' + spec.partition(':train')[2]
  shapes = load(f'configs/shapes/{spec.partition(":")[0]}:{twin}')
  initial = load(f'configs/wan/ode.py:{start}')
  assert wan.distill.dit == WAN_1_3B
  assert wan.distill.weights.student == initial.export
  assert wan.distill.negative
  for name in ('schedule', 'digits', 'sink', 'window', 'chunk', 'rollout'):
    assert getattr(wan.distill, name) == getattr(shapes.distill, name)
  for name in ('history', 'objective', 'flow', 'score', 'guidance'):
    assert getattr(wan.distill, name) == getattr(shapes.distill, name)


@pytest.mark.parametrize('name', ['self_forcing', 'causvid', 'diagdistill'])
def test_unknown_wan_variants_are_named(name):
  with pytest.raises(UserError, match="'train,x'"):
    load(f'configs/wan/{name}.py:train,x')


@pytest.mark.parametrize(
  'spec',
  [
    'teacher.py:huge',
    'teacher.py:nano,x',
    'causal.py:nano,x',
    'latents.py:x',
    'ode.py:huge',
    'ode_pairs.py:nano,x',
    'chain.py:nano,x',
    'chain.py:small,causvid,x',
    'causvid.py:nano,x',
    'self_forcing.py:nano,x',
    'consistency.py:huge',
  ],
)
def test_unknown_arguments_are_named(spec):
  with pytest.raises(UserError, match=r"'.*(x|huge)'"):
    load(f'configs/shapes/{spec}')
