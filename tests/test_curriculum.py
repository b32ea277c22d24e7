"""Stages of batches, and what else AAPT's trainings rest on."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvid.data.curriculum import Curriculum, Source, Stage
from jaxvid.errors import UserError
from jaxvid.ops import rope
from jaxvid.ops.attention import block_causal, ranges_mask, teacher_forcing
from jaxvid.ops.attention.sliding import sliding, sliding_teacher
from jaxvid.training import optimizer
from jaxvid.training.optimizer import OptimizerConfig


class Counted:
  """Batches that say where they come from."""

  def __init__(self, source, frames, seed, state):
    self.name, self.seed = (source.latents, frames), seed
    self.count = 0 if state is None else state['count']

  def __next__(self):
    self.count += 1
    return {'from': self.name, 'seed': self.seed, 'count': self.count}

  def get_state(self):
    return {'count': self.count}


STAGES = (
  Stage((Source('low', (5,)),), 3),
  Stage((Source('low', (5, 9)), Source('high', (5,), weight=3.0)), 40),
  Stage((Source('long', (13,)),)),
)


def take(count, state=None):
  batches = Curriculum(STAGES, Counted, 4, state)
  return list(itertools.islice(batches, count)), batches.get_state()


def test_stages_follow_one_another_and_mix_their_sources():
  rows, _ = take(60)
  names = [row['from'] for row in rows]
  assert names[:3] == [('low', 5)] * 3
  assert set(names[3:43]) == {('low', 5), ('low', 9), ('high', 5)}
  high = [name for name in names[3:43] if name[0] == 'high']
  assert 20 <= len(high) <= 38
  assert set(names[43:]) == {('long', 13)}
  assert len({row['seed'] for row in rows}) == 5


@pytest.mark.parametrize('stop', [2, 17, 50])
def test_a_stopped_curriculum_goes_on_with_the_same_batches(stop):
  rows, _ = take(60)
  first, state = take(stop)
  rest, _ = take(60 - stop, json.loads(json.dumps(state)))
  assert first + rest == rows


def test_impossible_curricula_are_refused():
  with pytest.raises(UserError, match='first frame'):
    Source('low', (1,))
  with pytest.raises(UserError, match='batch'):
    Source('low', (5,), 0)
  with pytest.raises(UserError, match='last stage'):
    Curriculum((STAGES[2], STAGES[0]), Counted, 0)


def test_rmsprop_is_the_textbook_one():
  config = OptimizerConfig(
    kind='rmsprop',
    learning_rate=0.1,
    beta2=0.9,
    weight_decay=0.0,
    schedule='constant',
    warmup_steps=0,
    clip_norm=0.0,
  )
  tx = optimizer.create(config, 5)
  params = {'w': jnp.array([1.0, -2.0])}
  state = tx.init(params)
  value, square = np.array([1.0, -2.0]), np.zeros(2)
  for gradient in ([0.5, 2.0], [-1.0, 0.1]):
    updates, state = tx.update({'w': jnp.array(gradient)}, state, params)
    params = optax.apply_updates(params, updates)
    square = 0.9 * square + 0.1 * np.square(gradient)
    value = value - 0.1 * np.array(gradient) / (np.sqrt(square) + 1e-8)
  np.testing.assert_allclose(params['w'], value, rtol=1e-5)


def test_positions_stretch_in_space_and_not_in_time():
  np.testing.assert_array_equal(rope.stretched(4, 4), np.arange(4))
  # Two tokens share the place of one.
  wide = rope.stretched(8, 4).reshape(4, 2)
  np.testing.assert_allclose(wide.mean(1), np.arange(4))
  frames = np.arange(3)
  small = rope.rotation(frames, 2, 2, 12, 10.0, (2, 2))
  np.testing.assert_array_equal(small, rope.rotation(frames, 2, 2, 12, 10.0))
  large = rope.rotation(frames, 4, 6, 12, 10.0, (2, 2)).reshape(2, 3, 24, 6)
  dims = rope.axis_dims(12)[0] // 2
  small = small.reshape(2, 3, 4, 6)
  np.testing.assert_allclose(large[:, :, 0, :dims], small[:, :, 0, :dims])
  assert not np.allclose(large[:, :, 0, dims:], small[:, :, 0, dims:])


def test_masks_are_those_of_a_memory():
  """Frame by frame: sink, window that ends with the own chunk, own chunk."""
  frames, chunk, tokens, sink, window = 9, 2, 3, 1, 4

  def sees(query, key):
    end = (query // chunk + 1) * chunk
    return key < end and (key < sink or key >= end - window)

  mask = ranges_mask(sliding(frames, chunk, tokens, sink, window), 27)
  mask = np.asarray(mask).reshape(9, 3, 9, 3)
  forced = sliding_teacher(frames, chunk, tokens, sink, window)
  forced = np.asarray(ranges_mask(forced, 54)).reshape(18, 3, 18, 3)
  for query, key in itertools.product(range(frames), range(frames)):
    known = sees(query, key)
    assert (mask[query, :, key] == known).all()
    assert (forced[query, :, key] == known).all()
    assert not forced[query, :, frames + key].any()
    same = query // chunk == key // chunk
    past = known and key // chunk < query // chunk
    assert (forced[frames + query, :, key] == past).all()
    assert (forced[frames + query, :, frames + key] == same).all()


def test_a_window_that_holds_all_is_plain_causal_attention():
  wide = ranges_mask(sliding(6, 2, 2, 1, 6), 12)
  np.testing.assert_array_equal(wide, ranges_mask(block_causal(6, 2, 2), 12))
  wide = ranges_mask(sliding_teacher(6, 2, 2, 1, 6), 24)
  np.testing.assert_array_equal(wide, ranges_mask(teacher_forcing(6, 2, 2), 24))
