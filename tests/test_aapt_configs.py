"""AAPT's recipes fit each other, and the published values are in them."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from test_training_configs import load

from jaxvid.errors import UserError
from jaxvid.models.dit import AAPT_8B, DiT
from jaxvid.objectives import gan
from jaxvid.tasks import ablate, presets
from jaxvid.training import aapt_matching, checkpoint, distillation, shapes

STAGES = ('adapt', 'consistency', 'adversarial')


def section(spec):
  config = load(spec)
  return config, next(
    value
    for name, value in vars(config).items()
    if name.startswith('aapt_') and value is not None
  )


@pytest.mark.parametrize('size', ['nano', 'small'])
def test_stages_start_where_the_one_before_ended(size):
  start, adapted = shapes.causal(size), ''
  for stage in (*STAGES, 'long'):
    config, own = section(f'configs/shapes/aapt_{stage}.py:{size}')
    assert own.weights == start and own.inputs.recycled == 'last'
    assert (own.sink, own.chunk) == (1, 1)
    start = config.export
    if stage == 'adapt':
      adapted = start
    if stage == 'adversarial':
      assert own.judge.weights == adapted
      run = config.workdir
    if stage == 'long':
      assert own.judge.weights == run and own.extensions == 1
  _, five = section(f'configs/shapes/aapt_long.py:{size},5')
  assert five.extensions == 5 and five.weights == start


def test_nano_is_warmed_up_by_the_teacher_that_ships():
  _, own = section('configs/shapes/aapt_matching.py:nano')
  assert own.judge_dit != own.dit
  sizes = jax.eval_shape(
    functools.partial(aapt_matching.init, own), jax.random.key(0)
  )
  teacher = distillation.part(own.teacher, 'dit', own.scan)
  checkpoint.check_tree(teacher, sizes['critic'], own.teacher)


def test_published_values_are_those_of_the_supplement():
  config, adapt = section('configs/wan/aapt_adapt.py')
  assert [s.steps for s in adapt.stages] == [20_000, 6_000, 0]
  assert config.loop.steps == 30_000
  assert [s.sources[0].batch for s in adapt.stages] == [256, 128, 32]
  assert (adapt.flow.times, adapt.flow.shift) == ('uniform', 24.0)
  optimizer = config.loop.optimizer
  assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-5, 0.01)
  config, distilled = section('configs/wan/aapt_consistency.py')
  assert config.loop.steps == 5_000
  assert distilled.consistency.steps == 32 and distilled.teacher == ''
  for spec, rate, batch, extensions in (
    ('adversarial.py', 3e-6, 256, 0),
    ('long.py', 1e-5, 64, 1),
    ('long.py:5', 1e-5, 64, 5),
  ):
    config, own = section(f'configs/wan/aapt_{spec}')
    for optimizer in (config.loop.optimizer, own.judge_optimizer):
      assert (optimizer.kind, optimizer.beta2) == ('rmsprop', 0.9)
      assert optimizer.learning_rate == rate
    assert config.loop.steps == 500 and own.extensions == extensions
    assert own.stages[0].sources[0].batch == batch
    assert own.gan == gan.AAPT and own.forcing == 'student'
    assert own.window == 30
  assert (gan.AAPT.r1, gan.AAPT.r2, gan.AAPT.penalty_sigma) == (1e3, 1e3, 0.1)


def test_the_chain_and_the_demo_name_what_the_recipes_make():
  stages = {
    s.name: s for s in load('configs/shapes/aapt_chain.py:small').stages
  }
  assert list(stages)[-2:] == ['ship', 'evaluate']
  last = load(stages['long5'].config)
  assert load(stages['ship'].config).dit == last.export
  assert load(stages['ship'].config).target.endswith(presets.AAPT['weights'])
  demo = load('configs/demo.py:aapt')
  assert demo.recycled and demo.schedule == '1' and demo.starter == 'shapes'
  low = load('configs/shapes/aapt_chain.py:nano,low').stages
  assert 'latents_larger' not in [stage.name for stage in low]
  with pytest.raises(UserError, match='aapt'):
    load('configs/demo.py:other')


@pytest.mark.parametrize('name', ['aapt', 'aapt_long'])
def test_ablations_train_everything_that_they_start_from(name):
  config = load(f'configs/ablations/{name}.py')
  made = set()
  for stage in ablate.stages_of(config):
    options = dict(o.split('=', 1) for o in stage.overrides)
    if not stage.name.startswith('train'):
      continue
    for key, value in options.items():
      if key.endswith('weights') and 'ablations' in value:
        assert value.removesuffix('/weights') in made
    made.add(options['workdir'])


def test_the_large_size_has_as_many_parameters_as_the_paper_says():
  x, text = jnp.zeros((1, 1, 2, 2, 32)), jnp.zeros((1, 1, 4096))
  init = DiT(AAPT_8B).init
  shapes = jax.eval_shape(init, jax.random.key(0), x, jnp.zeros(1), text)
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert 7.8e9 < count < 8.4e9
