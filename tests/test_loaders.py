"""Cached latents and the batches made of them."""

import json
import warnings

import numpy as np
import pytest

from jaxvid.data import loaders, prompt_sources
from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.data.shapes import captions
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.training import shapes

with warnings.catch_warnings():
  warnings.simplefilter('ignore')
  from jaxvid.data import latents, shards, trajectories

FRAMES = 9
SHAPE = (FRAMES, 2, 2, 4)


def examples(shard, count=6):
  for i in range(count):
    value = shard * count + i
    frame = np.arange(FRAMES)[:, None, None, None] / 16
    yield {
      'latents': (value + frame + np.zeros(SHAPE)).astype(np.float16),
      'captions': ['a red circle moving left', 'a red ball sliding left'],
      'scene': '{}',
    }


@pytest.fixture
def cache(tmp_path):
  shards.prepare(tmp_path, {'frames': FRAMES})
  for shard in range(2):
    latents.write_shard(tmp_path, shard, SHAPE, examples(shard))
  return tmp_path


def batches(folder, state=None, **changes):
  settings = {'batch': 4, 'frames': 6, 'text_drop': 0.5, 'seed': 0} | changes
  tokenizer = Tokenizer.load(shapes.TOKENIZER)
  return loaders.latent_batches(str(folder), tokenizer, state=state, **settings)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def assert_same(a, b):
  for one, other in zip(a, b, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_batches_have_the_promised_shapes(cache):
  (batch,) = take(batches(cache), 1)
  assert batch['latents'].shape == (4, 6, 2, 2, 4)
  assert batch['latents'].dtype == np.float16
  assert batch['ids'].shape == batch['mask'].shape == (4, shapes.TEXT_LEN)
  assert batch['ids'].dtype == np.int32 and batch['mask'].dtype == bool
  np.testing.assert_array_equal(batch['weight'], 1)


def test_every_clip_comes_once_an_epoch_in_mixed_order(cache):
  seen = np.concatenate(
    [batch['latents'][:, 0, 0, 0, 0] for batch in take(batches(cache), 3)]
  )
  assert sorted(seen) == list(range(12)) != list(seen)


def test_batches_resume_exactly(cache):
  whole = take(batches(cache, gap=0.5), 9)
  first = batches(cache, gap=0.5)
  take(first, 4)
  state = json.loads(json.dumps(first.get_state()))
  # More shards since then change nothing for this run.
  latents.write_shard(cache, 2, SHAPE, examples(2))
  assert_same(take(batches(cache, state, gap=0.5), 5), whole[4:])


def test_prompts_are_dropped_as_often_as_asked(cache):
  def lengths(text_drop):
    parts = take(batches(cache, text_drop=text_drop), 15)
    return np.concatenate([part['mask'].sum(1) for part in parts])

  assert np.all(lengths(1.0) == 1) and np.all(lengths(0.0) > 1)
  assert 0.25 < np.mean(lengths(0.5) == 1) < 0.75


def test_gaps_keep_the_first_chunk_and_hide_the_next(cache):
  found = 0
  for batch in take(batches(cache, gap=1.0, chunk=2), 5):
    index = batch['latents'][:, :, 0, 0, 0].astype(np.float32) % 1 * 16
    for row, weight in zip(index, batch['weight'], strict=True):
      skip = row[2] - 2
      assert list(row[:2]) == [0, 1] and np.all(np.diff(row[2:]) == 1)
      np.testing.assert_array_equal(weight[2:4], skip == 0)
      assert weight.sum() == (6 if skip == 0 else 4)
      found += skip > 0
  assert found > 0


def test_a_script_is_told_by_its_last_caption(tmp_path):
  """What that caption does not describe is seen, but not learned from."""
  texts = ['a red circle moves left', 'a blue circle moves left']
  clips = examples(0)
  shards.prepare(tmp_path, {'frames': FRAMES})
  scene = json.dumps({'shots': [], 'frames': 33})
  said = [texts[0]] * 2 + [texts[1]]  # One for every chunk of 3.
  changed = ({**clip, 'captions': said, 'scene': scene} for clip in clips)
  latents.write_shard(tmp_path, 0, SHAPE, changed)
  tokenizer = Tokenizer.load(shapes.TOKENIZER)
  old, new = (tokenizer([text])[0][0] for text in texts)
  seen = set()
  for batch in take(batches(tmp_path, chunk=3, text_drop=0.0), 8):
    index = batch['latents'][:, :, 0, 0, 0].astype(np.float32) % 1 * 16
    rows = zip(index, batch['ids'], batch['weight'], strict=True)
    for frames, ids, weight in rows:
      later = int(frames[3])
      seen.add(later)
      assert list(frames) == [0, 1, 2, *range(later, later + 3)]
      # Nothing that is seen tells how the time that was left out ends.
      wanted = (
        (ids == new, [0.0] * 6) if later == 6 else (ids == old, [1.0] * 6)
      )
      assert wanted[0].all() and list(weight) == wanted[1]
  assert seen == {3, 6}
  for batch in take(batches(tmp_path, chunk=3, text_drop=0.0, frames=9), 2):
    np.testing.assert_array_equal(batch['weight'][:, :6], 0.0)
    np.testing.assert_array_equal(batch['weight'][:, 6:], 1.0)


def test_a_killed_job_goes_on_with_the_next_shard(tmp_path):
  shards.prepare(tmp_path, {})

  def killed():
    yield from examples(0, 2)
    raise RuntimeError('killed')

  with pytest.raises(RuntimeError, match='killed'):
    latents.write_shard(tmp_path, 0, SHAPE, killed())
  with pytest.raises(UserError, match='no cached latents'):
    latents.open_shards(tmp_path)
  shards.prepare(tmp_path, {})
  assert latents.write_shard(tmp_path, 0, SHAPE, examples(0))
  assert not latents.write_shard(tmp_path, 0, SHAPE, examples(0))
  (source,) = latents.open_shards(tmp_path)
  assert len(source) == 6


def test_a_cache_of_other_settings_is_refused(cache):
  with pytest.raises(UserError, match='another frames'):
    shards.prepare(cache, {'frames': 3})


def test_impossible_requests(cache, tmp_path):
  with pytest.raises(UserError, match='holds clips of 9 latent frames'):
    batches(cache, frames=10)
  with pytest.raises(UserError, match='more than the 12 clips'):
    batches(cache, batch=13)
  with pytest.raises(UserError, match='has 2 shards, the run needs 3'):
    batches(cache, {'shards': 3})
  with pytest.raises(UserError, match='no cached latents'):
    batches(tmp_path / 'nowhere')


def test_folders_are_read_as_one_and_keep_their_place(cache, tmp_path):
  other = tmp_path / 'other'
  shards.prepare(other, {'frames': FRAMES})
  latents.write_shard(other, 0, SHAPE, examples(2))
  both = f'{cache},{other}'
  epoch = take(batches(both, batch=6), 3)
  seen = np.concatenate([part['latents'][:, 0, 0, 0, 0] for part in epoch])
  assert sorted(seen) == list(range(18))
  whole = take(batches(both), 6)
  first = batches(both)
  take(first, 2)
  state = json.loads(json.dumps(first.get_state()))
  latents.write_shard(other, 1, SHAPE, examples(3))
  assert_same(take(batches(both, state), 4), whole[2:])
  with pytest.raises(UserError, match='began with 2 folders of data, not 1'):
    batches(cache, state)


def test_rendered_clips_depend_on_their_index_alone():
  source = loaders.RenderedShapes(SceneSettings(counts=(1.0,)), frames=3)
  first, again, other = source[5], source[5], source[6]
  assert first['video'].shape == (3, 64, 64, 3)
  np.testing.assert_array_equal(first['video'], again['video'])
  assert first['captions'] == again['captions']
  assert first['scene'] != other['scene']


LEVELS = (1000.0, 937.5, 625.0)


@pytest.fixture
def pairs(tmp_path):
  """8 trajectories of 3 levels and the end, told apart by their values."""
  folder = tmp_path / 'pairs'
  shards.prepare(folder, {'levels': LEVELS})
  shape = (4, FRAMES, 2, 2, 4)
  for shard in range(2):
    examples = (
      {
        'trajectory': np.broadcast_to(
          10 * (4 * shard + i) + np.arange(4.0)[:, None, None, None, None],
          shape,
        ).astype(np.float16),
        'prompt': f'a red circle {"moving " * (4 * shard + i + 1)}',
      }
      for i in range(4)
    )
    trajectories.write_shard(folder, shard, shape, examples)
  return folder


def pair_batches(folder, state=None, **changes):
  settings = {'batch': 2, 'frames': 6, 'levels': LEVELS, 'seed': 0} | changes
  tokenizer = Tokenizer.load(shapes.TOKENIZER)
  return loaders.trajectory_batches(
    str(folder), tokenizer, state=state, **settings
  )


def test_trajectories_come_with_their_prompts(pairs):
  for batch in take(pair_batches(pairs), 4):
    assert batch['trajectory'].shape == (2, 4, 6, 2, 2, 4)
    assert batch['trajectory'].dtype == np.float16
    first = batch['trajectory'][:, 0, 0, 0, 0, 0]
    # Three words, the repeated one, and the end token.
    np.testing.assert_array_equal(batch['mask'].sum(1), first / 10 + 5)
    levels = batch['trajectory'][:, :, 5, 1, 1, 3] - first[:, None]
    np.testing.assert_array_equal(levels, [[0, 1, 2, 3]] * 2)


def test_some_of_the_levels_are_read(pairs):
  (batch,) = take(pair_batches(pairs, levels=(1000.0, 625.0)), 1)
  index = batch['trajectory'][:, :, 0, 0, 0, 0] % 10
  np.testing.assert_array_equal(index, [[0, 2, 3]] * 2)


def test_trajectories_resume_exactly(pairs):
  whole = take(pair_batches(pairs), 7)
  first = pair_batches(pairs)
  take(first, 3)
  state = json.loads(json.dumps(first.get_state()))
  assert_same(take(pair_batches(pairs, state), 4), whole[3:])


def test_missing_pairs_name_the_command_that_makes_them(pairs, tmp_path):
  command = rf'--config=configs/shapes/ode_pairs.py --config.target={tmp_path}'
  with pytest.raises(UserError, match=command):
    pair_batches(tmp_path / 'nothing')
  with pytest.raises(UserError, match=r'at time steps 1000, 937.5, 625, not'):
    pair_batches(pairs, levels=(1000.0, 833.0))
  with pytest.raises(UserError, match='holds clips of 9 latent frames, not 10'):
    pair_batches(pairs, frames=10)
  shards.prepare(tmp_path / 'latents', {'frames': 3})
  with pytest.raises(UserError, match='no cache of ODE pairs'):
    pair_batches(tmp_path / 'latents')


def prompt_batches(config, state=None):
  tokenizer = Tokenizer.load(shapes.TOKENIZER)
  return loaders.prompt_batches(config, tokenizer, batch=3, seed=1, state=state)


def test_prompts_come_from_scenes_files_and_caches_and_resume(cache, tmp_path):
  file = tmp_path / 'list.txt'
  file.write_text('\n'.join(f'a {"red " * i}circle' for i in range(1, 8)))
  for config in (
    PromptConfig(),
    PromptConfig(file=str(file)),
    PromptConfig(latents=str(cache)),
  ):
    whole = take(prompt_batches(config), 6)
    assert whole[0]['ids'].shape == whole[0]['mask'].shape == (3, 48)
    assert len({row.tobytes() for part in whole for row in part['ids']}) > 1
    first = prompt_batches(config)
    take(first, 2)
    state = json.loads(json.dumps(first.get_state()))
    assert_same(take(prompt_batches(config, state), 4), whole[2:])


def test_prompts_of_a_file_all_come_once_an_epoch(tmp_path):
  file = tmp_path / 'list.txt'
  file.write_text('\n'.join(f'a {"red " * i}circle' for i in range(1, 7)))
  parts = take(prompt_batches(PromptConfig(file=str(file))), 2)
  lengths = sorted(n for part in parts for n in part['mask'].sum(1))
  assert lengths == [4, 5, 6, 7, 8, 9]


def test_prompts_of_scenes_are_those_training_may_see():
  source = prompt_sources.ShapesPrompts(SceneSettings(), seed=3)
  texts = [source[i][0] for i in range(30)]
  assert texts == [source[i][0] for i in range(30)]
  assert len(set(texts)) > 25
  for text in texts:
    assert captions.parse(text) is not None, text
  with pytest.raises(UserError, match='not both'):
    PromptConfig(file='a.txt', latents='b')
