"""Motion features: what each form sees, and the guard against collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft

from jaxvid.errors import UserError
from jaxvid.models import motion
from jaxvid.models.motion import MotionConfig

SHAPE = (2, 4, 4, 6, 4)
KINDS = ('raw', 'difference', 'correlation', 'low', 'high', 'mlp', 'conv')


def draw(seed, shape=SHAPE):
  return jax.random.normal(jax.random.key(seed), shape)


def config_of(kind, **settings):
  return MotionConfig(kind=kind, hidden=8, groups=4, **settings)


def features(config, x, seed=0):
  params = motion.init(config, jax.random.key(seed), x.shape[-1])
  return motion.apply(config, params, x)


@pytest.mark.parametrize('kind', KINDS)
def test_shapes_and_gradients(kind):
  config, x = config_of(kind), draw(0)
  y, pull = jax.vjp(lambda x: features(config, x), x)
  channels = 24 if kind == 'correlation' else 4
  assert y.shape == (2, 3 if config.pairs else 4, 4, 6, channels)
  (dx,) = pull(draw(1, y.shape))
  assert np.isfinite(dx).all() and np.any(dx)
  learned = motion.init(config, jax.random.key(0), 4)
  assert bool(learned) == config.learned == (kind in ('mlp', 'conv'))


def test_correlation_is_every_pair_of_positions():
  x = draw(0)
  y = features(config_of('correlation'), x)
  expected = np.sum(x[1, 2, 3, 1] * x[1, 3, 0, 5]) / 2
  np.testing.assert_allclose(y[1, 2, 3, 1, 0 * 6 + 5], expected, rtol=1e-5)
  pooled = features(config_of('correlation', pool=2), x)
  assert pooled.shape == (2, 3, 2, 3, 6)
  mean = x.reshape(2, 4, 2, 2, 3, 2, 4).mean((3, 5))
  expected = np.sum(mean[0, 0, 1, 2] * mean[0, 1, 0, 1]) / 2
  np.testing.assert_allclose(pooled[0, 0, 1, 2, 1], expected, rtol=1e-5)


def test_bands_split_the_cosine_transform():
  x = draw(0)
  low = features(config_of('low', cutoff=0.5), x)
  high = features(config_of('high', cutoff=0.5), x)
  expected = scipy.fft.dctn(np.asarray(x), axes=(2, 3), norm='ortho')
  np.testing.assert_allclose(low + high, expected, atol=1e-5)
  assert not np.any(low[:, :, 2:]) and not np.any(low[:, :, :, 3:])
  assert not np.any(high[:, :, :2, :3])
  flat = features(config_of('high'), jnp.ones(SHAPE))
  np.testing.assert_allclose(flat, 0, atol=1e-6)


def test_perceptron_mixes_no_positions_and_the_convolution_neighbours():
  x = draw(0)
  moved = x.at[0, 2, 1, 3].add(1.0)

  def changed(config):
    return np.any(features(config, x) != features(config, moved), axis=-1)

  alone = np.zeros(SHAPE[:4], bool)
  alone[0, 2, 1, 3] = True
  np.testing.assert_array_equal(changed(config_of('mlp')), alone)
  # Group norm reaches the whole frame, so only frames can be told apart.
  frames = changed(config_of('conv')).any((2, 3))
  expected = [[False, True, True], [False, False, False]]
  np.testing.assert_array_equal(frames, expected)
  assert changed(config_of('conv'))[0, 1, 0:3, 2:5].all()


def test_a_still_clip_has_no_difference():
  still = jnp.broadcast_to(draw(0)[:, :1], SHAPE)
  assert not np.any(features(config_of('difference'), still))


def test_released_head_starts_as_the_identity_and_can_learn():
  config, x = motion.release(), draw(0)
  params = motion.init(config, jax.random.key(0), 4)
  assert params['conv_0']['kernel'].shape == (1, 1, 4, 64)
  y = motion.apply(config, params, x)
  np.testing.assert_array_equal(y, x[:, 1:] - x[:, :-1])
  grads = jax.grad(lambda p: jnp.sum(motion.apply(config, p, x) ** 3))(params)
  assert np.any(grads['conv_1']['kernel'])


def test_normalisation_keeps_the_amplitude_of_motion():
  """Half the motion must look like half the motion, not like the same."""
  config, target = config_of('difference'), 3 * draw(0) + 1
  scale = motion.statistics(config, target)
  y = motion.apply(config, {}, target, scale)
  np.testing.assert_allclose(jnp.std(y, (0, 1, 2, 3)), 1, rtol=1e-4)
  half = motion.apply(config, {}, 0.5 * target, scale)
  np.testing.assert_allclose(jnp.std(half, (0, 1, 2, 3)), 0.5, rtol=1e-4)


def test_target_follows_the_student():
  target, student = {'a': jnp.zeros(2)}, {'a': jnp.ones(2)}
  moved = motion.update_target(target, student, 0.75)
  np.testing.assert_allclose(moved['a'], 0.25)


def test_a_constant_head_is_detected_and_penalised():
  config = config_of('mlp', residual=False)
  params = motion.init(config, jax.random.key(0), 4)
  params['conv_1'] = jax.tree.map(jnp.zeros_like, params['conv_1'])
  y = motion.apply(config, params, draw(0))
  assert motion.feature_std(y).max() < 0.01
  assert motion.collapse_penalty(y) > 0.99
  lively = draw(1, (64, *SHAPE[1:])) * 1.1
  assert motion.collapse_penalty(lively) == 0
  grad = jax.grad(lambda y: motion.collapse_penalty(y))(jnp.zeros(SHAPE))
  assert np.isfinite(grad).all()


@pytest.mark.parametrize('guard', [0.0, 1.0])
def test_heads_alone_shrink_unless_guarded(guard):
  """Student and averaged target agree best by seeing nothing."""
  config = config_of('mlp', residual=False)
  x, target = draw(0), draw(1)
  student = motion.init(config, jax.random.key(0), 4)
  tx = optax.adam(2e-2)

  def loss(student, averaged):
    seen = motion.apply(config, student, x)
    error = seen - motion.apply(config, averaged, target)
    own = motion.apply(config, student, target)
    return jnp.mean(error**2) + guard * motion.collapse_penalty(own)

  def step(state, _):
    student, averaged, opt = state
    updates, opt = tx.update(jax.grad(loss)(student, averaged), opt)
    student = optax.apply_updates(student, updates)
    averaged = motion.update_target(averaged, student, 0.9)
    return (student, averaged, opt), None

  def deviation(params):
    return motion.feature_std(motion.apply(config, params, target)).mean()

  start = deviation(student)
  state = (student, student, tx.init(student))
  (student, averaged, _), _ = jax.lax.scan(step, state, None, 150)
  if guard:
    assert deviation(student) > 0.5 and deviation(averaged) > 0.5
  else:
    assert deviation(student) < 0.3 * start
    assert motion.collapse_penalty(
      motion.apply(config, student, target)
    ) > motion.collapse_penalty(target)


@pytest.mark.parametrize(
  'wrong, named',
  [
    ({'cutoff': 0.0}, 'cutoff'),
    ({'hidden': 10, 'groups': 4}, 'hidden=10'),
    ({'kind': 'mlp', 'compat': True}, 'compat'),
    ({'pool': 0}, 'pool'),
  ],
)
def test_wrong_settings_are_named(wrong, named):
  with pytest.raises(UserError, match=named):
    MotionConfig(**wrong)


def test_a_pool_that_does_not_divide_is_named():
  with pytest.raises(UserError, match='pool=4'):
    features(config_of('correlation', pool=4), draw(0))
