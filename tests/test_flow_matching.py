"""Flow-matching losses: times, forcing, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives import flow_matching
from jaxvid.objectives.flow_matching import FlowConfig

SHAPE = (4, 6, 2, 2, 3)


def draw(seed=0, shape=SHAPE):
  return jax.random.normal(jax.random.key(seed), shape)


def mixing(x, t):
  """A stand-in for a model: mixes a clip's frames, not the clips."""
  return (
    0.3 * x + jnp.mean(x, 1, keepdims=True) * (t / 1000)[..., None, None, None]
  )


def test_one_chunk_is_the_bidirectional_loss():
  key = jax.random.key(3)
  whole, _ = flow_matching.loss(mixing, draw(), key, FlowConfig())
  chunked, _ = flow_matching.loss(
    mixing, draw(), key, FlowConfig(forcing='diffusion', chunk=6)
  )
  np.testing.assert_array_equal(whole, chunked)


def test_times_are_equal_within_a_chunk_only():
  config = FlowConfig(forcing='diffusion', chunk=3)
  t = flow_matching.sample_times(jax.random.key(0), config, 5, 7)
  assert t.shape == (5, 7)
  np.testing.assert_array_equal(t[:, :3], t[:, :1].repeat(3, 1))
  assert len(np.unique(t)) == 15


@pytest.mark.parametrize('times', ['logit_normal', 'uniform'])
def test_shift_moves_times_towards_noise(times):
  key = jax.random.key(0)
  plain = flow_matching.sample_times(key, FlowConfig(times=times), 2000, 1)
  shifted = flow_matching.sample_times(
    key, FlowConfig(times=times, shift=5.0), 2000, 1
  )
  np.testing.assert_allclose(np.median(plain), 500, atol=30)
  np.testing.assert_allclose(shifted, flow.shift_t(plain, 5.0), rtol=1e-5)
  assert np.all(shifted > 0) and np.all(shifted <= 1000)


@pytest.mark.parametrize('forcing', ['none', 'diffusion', 'teacher'])
def test_errors_do_not_depend_on_the_rest_of_the_batch(forcing):
  config = FlowConfig(forcing=forcing, weighting='bell')
  x0, noise = draw(0), draw(1)
  t = flow_matching.sample_times(jax.random.key(2), config, 4, 6)
  together = flow_matching.clip_errors(mixing, x0, noise, t, config)
  alone = [
    flow_matching.clip_errors(
      mixing, x0[i:][:1], noise[i:][:1], t[i:][:1], config
    )
    for i in range(4)
  ]
  np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)


def test_a_perfect_model_has_no_error():
  x0, noise = draw(0), draw(1)
  config = FlowConfig()
  t = flow_matching.sample_times(jax.random.key(2), config, 4, 6)
  errors = flow_matching.clip_errors(
    lambda x, t: noise - x0, x0, noise, t, config
  )
  np.testing.assert_array_equal(errors, 0)


def test_teacher_forcing_shows_the_clean_clip_first():
  x0, noise = draw(0), draw(1)
  seen = {}

  def spy(x, t):
    seen.update(x=x, t=t)
    return x

  config = FlowConfig(forcing='teacher')
  t = flow_matching.sample_times(jax.random.key(2), config, 4, 6)
  flow_matching.clip_errors(spy, x0, noise, t, config)
  np.testing.assert_array_equal(seen['x'][:, :6], x0)
  np.testing.assert_array_equal(seen['t'][:, :6], 0)
  np.testing.assert_array_equal(seen['t'][:, 6:], t)
  np.testing.assert_allclose(
    seen['x'][:, 6:], flow.add_noise(x0, noise, t / 1000), rtol=1e-6
  )


def test_noisy_context_has_its_own_level_and_noise():
  x0, noise, other = draw(0), draw(1), draw(2)
  seen = {}

  def spy(x, t):
    seen.update(x=x, t=t)
    return x

  config = FlowConfig(forcing='teacher', context_t=100.0)
  t = jnp.full((4, 6), 700.0)
  flow_matching.clip_errors(spy, x0, noise, t, config, context_noise=other)
  np.testing.assert_allclose(
    seen['x'][:, :6], 0.9 * x0 + 0.1 * other, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(seen['t'][:, :6], 100)


def test_frames_of_weight_zero_do_not_count():
  x0, noise = draw(0), draw(1)
  config, t = FlowConfig(), jnp.full((4, 6), 500.0)
  weight = jnp.ones((4, 6)).at[:, 2].set(0)
  errors = flow_matching.clip_errors(
    lambda x, t: x.at[:, 2].set(1e6), x0, noise, t, config, weight
  )
  assert np.all(errors < 100)


@pytest.mark.parametrize(
  'bad', [{'chunk': 0}, {'shift': 0.0}, {'std': -1.0}, {'context_t': 1000.0}]
)
def test_impossible_settings(bad):
  with pytest.raises(UserError, match=next(iter(bad))):
    FlowConfig(**bad)


@pytest.mark.parametrize('forcing', ['none', 'teacher'])
def test_first_frame_of_staggered_clips_has_its_own_level(forcing):
  config = FlowConfig(forcing=forcing, staggered=0.5)
  t = flow_matching.sample_times(jax.random.key(0), config, 400, 6)
  assert np.all(t[:, 1] == t[:, 2])
  own = np.asarray(t[:, 0] != t[:, 1])
  np.testing.assert_allclose(own.mean(), 0.5, atol=0.1)


def test_impossible_share_of_staggered_clips():
  with pytest.raises(UserError, match='staggered'):
    FlowConfig(staggered=1.5)
