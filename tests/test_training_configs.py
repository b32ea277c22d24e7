"""The training configs of the shapes world fit their tasks."""

import pytest

from jaxvid import config as config_lib
from jaxvid import config_files
from jaxvid.errors import UserError
from jaxvid.main import task_module


def load(spec):
  config, _ = config_files.load_config(spec)
  task = task_module(config.task)
  with config.unlocked():
    del config['task']
  config_lib.complete(task.Config, config)
  return config_lib.from_dict(task.Config, config)


@pytest.mark.parametrize('size', ['nano', 'small', 'base'])
def test_stages_chain_from_one_to_the_next(size):
  short = load(f'configs/shapes/teacher.py:{size}')
  long = load(f'configs/shapes/teacher.py:{size},long')
  causal = load(f'configs/shapes/causal.py:{size}')
  assert long.loop.init_from == short.workdir
  assert causal.loop.init_from == short.workdir
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


@pytest.mark.parametrize(
  'spec',
  ['teacher.py:huge', 'teacher.py:nano,x', 'causal.py:nano,x', 'latents.py:x'],
)
def test_unknown_arguments_are_named(spec):
  with pytest.raises(UserError, match=r"'.*(x|huge)'"):
    load(f'configs/shapes/{spec}')
