"""ODE pairs of a tiny teacher: made, resumed, read for training."""

import dataclasses
import json
import pathlib
import warnings

import numpy as np
import pytest
import tiny_bundle

from jaxvid.data import loaders
from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError
from jaxvid.tasks import ode_pairs, pair_sampler
from jaxvid.tasks.ode_pairs import Config
from jaxvid.training import ode

with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  from jaxvid.data import trajectories

pytestmark = pytest.mark.filterwarnings('ignore:the prompt has')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return tiny_bundle.write(tmp_path_factory.mktemp('weights'))


@pytest.fixture
def make(weights, tmp_path):
  def make(**changes):
    parts = {
      'weights': str(weights),
      'target': str(tmp_path / 'pairs'),
      'schedule': Spec('3', shift=2.0),
      'steps': 4,
      'frames': 2,
      'chunk': 1,
      'clips': 4,
      'shard': 2,
      'batch': 2,
    }
    return Config(**(parts | changes))

  return make


def stored(config):
  return [
    (example['prompt'].decode(), example['trajectory'])
    for source in trajectories.open_shards(config.target)
    for example in source
  ]


def test_pairs_are_made_resumed_and_read(make, weights, tmp_path):
  config = make()
  ode_pairs.run(config)
  clips = stored(config)
  assert len(clips) == 4
  for prompt, kept in clips:
    assert kept.shape == (4, 2, 2, 4, 16) and kept.dtype == np.float16
    # It begins with noise, and other noise for each clip.
    assert 0.8 < kept[0].std() < 1.2 and prompt
  assert len({kept[0].tobytes() for _, kept in clips}) == 4
  settings = json.loads((tmp_path / 'pairs' / 'cache.json').read_text())
  levels = (1000.0, 6000 / 7, 2000 / 11)
  assert settings['levels'] == pytest.approx(levels, abs=1e-9)
  assert trajectories.read_levels(config.target) == tuple(settings['levels'])
  # Killed in its first shard, by a process that never tidied up.
  folder = tmp_path / 'pairs' / 'trajectory_shard' / 'shard_00000'
  (folder / '1.0.0').rename(folder / 'incomplete.1_1.0.0')
  ode_pairs.run(dataclasses.replace(config, batch=1))
  assert not (folder / 'incomplete.1_1.0.0').exists()
  again = stored(config)
  for (prompt, kept), (same, close) in zip(clips, again, strict=True):
    assert prompt == same
    np.testing.assert_allclose(kept, close, atol=2e-2)
  with pytest.raises(UserError, match='made with another guidance, steps'):
    ode_pairs.run(dataclasses.replace(config, guidance=2.0, steps=5))
  tokenizer = Tokenizer.load(weights.parent / 'tokenizer', 12)
  batch = next(
    loaders.trajectory_batches(
      config.target,
      tokenizer,
      levels=ode.student_levels(config.schedule),
      batch=2,
      frames=2,
      seed=0,
    )
  )
  assert batch['trajectory'].shape == (2, 4, 2, 2, 4, 16)


def test_causal_pairs_and_workers_that_share_the_job(make, tmp_path):
  (tmp_path / 'list.txt').write_text('a red circle\na blue ring\n')
  config = make(
    source='causal',
    prompts=PromptConfig(file=str(tmp_path / 'list.txt')),
    guidance=1.0,
    clips=3,
    shard=1,
    batch=1,
    workers=2,
    worker=1,
  )
  ode_pairs.run(config)
  # Shard 1 is there, but waits for shard 0.
  with pytest.raises(UserError, match='no ODE pairs'):
    trajectories.open_shards(config.target)
  ode_pairs.run(dataclasses.replace(config, worker=0))
  clips = stored(config)
  prompts = [prompt for prompt, _ in clips]
  assert prompts == ['a red circle', 'a blue ring', 'a red circle']
  (tmp_path / 'list.txt').write_text('a red circle\na blue box\n')
  with pytest.raises(UserError, match='made with another prompts'):
    ode_pairs.run(config)


def test_plain_weights_need_a_tokenizer_and_a_size(make, weights):
  config = make(
    weights=str(weights.parent / 'model'),
    tokenizer=str(weights.parent / 'tokenizer'),
  )
  with pytest.raises(UserError, match='height must be a multiple of 16, not 0'):
    pair_sampler.load(config, (1000.0,))
  sized = dataclasses.replace(config, height=16, width=32)
  plain = pair_sampler.load(sized, (1000.0,))
  bundled = pair_sampler.load(make(), (1000.0,))
  assert plain.size == bundled.size == (2, 4, 16)
  assert plain.fingerprint == bundled.fingerprint


def test_impossible_jobs(make, tmp_path):
  for changes, message in (
    ({'batch': 3}, 'multiple of batch, not 2 and 3'),
    ({'worker': 1}, 'worker must be from 0 to workers - 1 = 0, not 1'),
    ({'clips': 0}, 'clips and frames must be >= 1, not 0'),
    ({'source': 'causal', 'chunk': 3}, 'frames must be a multiple of chunk'),
  ):
    with pytest.raises(UserError, match=message):
      make(**changes)
  for changes, message in (
    ({'weights': str(tmp_path)}, 'holds neither a jaxvid bundle'),
    ({'tokenizer': 'x', 'weights': 'nowhere'}, "no weights at 'nowhere'"),
    ({'schedule': Spec('teacher')}, "give the student's ticks"),
    ({'steps': 2}, '2 solver steps cannot pass through 3'),
    ({'prompts': PromptConfig(file='none.txt')}, 'cannot read prompts'),
  ):
    with pytest.raises(UserError, match=message):
      ode_pairs.run(make(**changes))
  assert not pathlib.Path(make().target).exists()
