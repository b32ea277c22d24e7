"""Flow distribution matching: a true gradient, masks, weights, the total."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.models import motion
from jaxvid.models.motion import MotionConfig
from jaxvid.objectives import dmd, flow_distribution
from jaxvid.objectives.flow_distribution import FlowDistributionConfig

SHAPE = (2, 5, 2, 3, 4)
KINDS = ('raw', 'difference', 'correlation', 'low', 'high', 'mlp', 'conv')


def draw(seed, shape=SHAPE):
  return jax.random.normal(jax.random.key(seed), shape)


def clips():
  """x, fake_x0, real_x0, target."""
  return draw(0), draw(1), draw(2), draw(3)


def config_of(kind='conv', **settings):
  return FlowDistributionConfig(
    motion=MotionConfig(kind=kind, hidden=8, groups=4), **settings
  )


def heads(config):
  return [motion.init(config.motion, jax.random.key(i), 4) for i in (7, 8)]


@pytest.mark.parametrize('frame_weight', ['none', 'upstream'])
def test_flow_gradient_is_true(frame_weight):
  """Against finite differences of the loss with its target held still."""
  x, fake, real, _ = clips()
  config = config_of(frame_weight=frame_weight)
  mask = jnp.arange(5) >= jnp.array([[0], [2]])
  grad = flow_distribution.flow_gradient(x, fake, real)
  start = jnp.diff(x, axis=1)
  goal = start - grad
  weight = jnp.ones((2, 4))
  if frame_weight == 'upstream':
    weight = flow_distribution.upstream_frame_weight(x, grad)
  counts = mask[:, 1:] & mask[:, :-1]

  def held(x):
    error = weight * jnp.mean((jnp.diff(x, axis=1) - goal) ** 2, (2, 3, 4))
    return 0.5 * jnp.sum(jnp.where(counts, error, 0)) / counts.sum()

  value, slope = jax.value_and_grad(
    lambda x: flow_distribution.flow_dmd(
      x, flow_distribution.flow_gradient(x, fake, real), config, mask
    )
  )(x)
  np.testing.assert_allclose(value, held(x), rtol=1e-5)
  for seed in (4, 5):
    direction = draw(seed)
    moved = [held(x + step * direction) for step in (0.05, -0.05)]
    difference = (moved[0] - moved[1]) / 0.1
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(
      difference, jnp.sum(slope * direction), rtol=1e-3
    )
  # Only pairs with both frames count; every frame of such a pair learns.
  learns = np.any(slope, axis=(2, 3, 4))
  np.testing.assert_array_equal(learns, mask)


def test_flow_gradient_is_the_normalised_difference_of_differences():
  x, fake, real, _ = clips()
  grad = flow_distribution.flow_gradient(x, fake, real)
  dx, dfake, dreal = (np.diff(np.asarray(v), axis=1) for v in (x, fake, real))
  scale = np.abs(dx - dreal).mean((1, 2, 3, 4), keepdims=True)
  np.testing.assert_allclose(grad, (dfake - dreal) / scale, rtol=1e-4)


def test_descending_the_flow_loss_brings_the_teachers_motion():
  """Where fake follows x, differences end at the teacher's; places do not."""
  config, goal = config_of(), draw(1)

  def step(x, _):
    grad = flow_distribution.flow_gradient(x, x, goal, normalise=False)
    slope = jax.grad(flow_distribution.flow_dmd)(x, grad, config)
    return x - 0.5 * x.size * slope / 2, None

  start = draw(0)
  x, _ = jax.lax.scan(step, start, None, 200)
  np.testing.assert_allclose(
    jnp.diff(x, axis=1), jnp.diff(goal, axis=1), atol=0.05
  )
  np.testing.assert_allclose(x.mean(1), start.mean(1), atol=1e-4)


def test_upstream_weight_by_hand():
  x, grad = draw(0), draw(1, (2, 4, 2, 3, 4))
  weight = flow_distribution.upstream_frame_weight(x, grad)
  error = np.asarray(((grad - x[:, 1:]) ** 2).mean((2, 3, 4)))
  growth = 1.2 ** np.arange(4)
  expected = 0.7 * (1 + np.cumsum(error, 1) / error.sum(1, keepdims=True))
  expected = expected + 0.3 * growth / growth.mean()
  np.testing.assert_allclose(weight, expected, rtol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_every_motion_feature_trains_the_generator(kind):
  config = config_of(kind)
  x, _, _, target = clips()
  student, averaged = heads(config)
  mask = jnp.arange(5) >= jnp.array([[0], [3]])

  def loss(x, target, student, averaged):
    return flow_distribution.flow_regression(
      x, target, student, averaged, config.motion, mask
    )[0]

  grads = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
  dx, dtarget, dstudent, daveraged = grads(x, target, student, averaged)
  learns = np.any(dx, axis=(2, 3, 4))
  np.testing.assert_array_equal(learns, mask)
  assert not np.any(dtarget)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(dstudent))
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(daveraged))
  same = jax.jit(loss)(target, target, student, student)
  np.testing.assert_allclose(same, 0, atol=1e-10)


def test_guard_reaches_the_head_and_never_the_generator():
  config = config_of('mlp', gamma=0.0, spatial=0.0, regression=0.0)
  motion_config = dataclasses.replace(config.motion, residual=False)
  config = dataclasses.replace(config, motion=motion_config)
  student, averaged = heads(config)
  x, fake, real, target = clips()

  def loss(x, student, collapse):
    changed = dataclasses.replace(config, collapse=collapse)
    return flow_distribution.total(
      x, fake, real, target, student, averaged, changed
    )[0]

  dx, dhead = jax.jit(jax.grad(loss, (0, 1)))(x, student, 1.0)
  assert not np.any(dx)
  assert any(np.any(leaf) for leaf in jax.tree.leaves(dhead))


@pytest.mark.parametrize('distance', ['mse', 'charbonnier', 'cauchy'])
def test_regression_distances(distance):
  config = config_of(distance=distance)
  x, _, _, target = clips()
  error = np.asarray(x - target)
  expected = {
    'mse': error**2,
    'charbonnier': np.sqrt(error**2 + 1e-6),
    'cauchy': np.log1p((error / 0.01) ** 2),
  }[distance]
  value = flow_distribution.regression(x, target, config)
  np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
  grad = jax.grad(flow_distribution.regression)(x, x, config)
  np.testing.assert_allclose(grad, 0, atol=1e-7)


def test_total_is_equation_12():
  config, mask = config_of(), jnp.arange(5) >= jnp.array([[0], [1]])
  x, fake, real, target = clips()
  student, averaged = heads(config)
  loss, m = flow_distribution.total(
    x, fake, real, target, student, averaged, config, mask
  )
  spatial = dmd.surrogate(x, dmd.gradient(x, fake, real), mask)
  np.testing.assert_allclose(m['dmd'], spatial, rtol=1e-6)
  expected = 4 * m['dmd'] + m['regression']
  expected += 4 * m['flow_dmd'] + m['flow_regression'] + m['motion_collapse']
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert m['motion_std'] > 0.1


def test_released_form():
  config = flow_distribution.release()
  x, fake, real, target = clips()
  head = motion.init(config.motion, jax.random.key(0), 4)
  loss, m = flow_distribution.total(x, fake, real, target, head, head, config)
  moved = np.diff(np.asarray(x - target), axis=1)
  np.testing.assert_allclose(m['flow_regression'], (moved**2).mean(), rtol=1e-5)
  grad = flow_distribution.flow_gradient(x, fake, real)
  weight = flow_distribution.upstream_frame_weight(x, grad)
  flow = (weight * (grad**2).mean((2, 3, 4))).mean()
  np.testing.assert_allclose(m['flow_dmd'], flow, rtol=1e-5)
  expected = 4 * m['dmd'] + 4 * flow + m['flow_regression']
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('frame_weight', ['none', 'upstream'])
def test_one_frame_has_no_motion(frame_weight):
  config = config_of('difference', frame_weight=frame_weight)
  x, fake, real, _ = (clip[:, :1] for clip in clips())
  flow = flow_distribution.flow_dmd(
    x, flow_distribution.flow_gradient(x, fake, real), config
  )
  assert flow == 0


@pytest.mark.parametrize(
  'wrong', [{'gamma': -1.0}, {'c': 0.0}, {'epsilon': 0.0}]
)
def test_wrong_settings_are_named(wrong):
  with pytest.raises(UserError, match=next(iter(wrong))):
    FlowDistributionConfig(**wrong)
