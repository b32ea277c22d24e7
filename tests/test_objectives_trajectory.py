"""ODE regression and consistency: levels, targets, forcing, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives import consistency, regression
from jaxvid.objectives.consistency import ConsistencyConfig
from jaxvid.objectives.regression import RegressionConfig

TIMES = (1000.0, 750.0, 250.0)
SHAPE = (3, 5, 2, 2, 1)


def draw(seed, shape=SHAPE):
  return jax.random.normal(jax.random.key(seed), shape)


def trajectories():
  """Entry k of frame f holds 100 k + f everywhere: easy to recognise."""
  entry = 100 * jnp.arange(4)[:, None] + jnp.arange(5)
  return jnp.broadcast_to(
    entry[None, ..., None, None, None], (3, 4, *SHAPE[1:])
  )


def test_levels_are_equal_within_a_chunk_and_cover_all():
  config = RegressionConfig(TIMES, chunk=2)
  levels = regression.sample_levels(jax.random.key(0), config, 200, 5)
  np.testing.assert_array_equal(levels[:, 0:4:2], levels[:, 1:4:2])
  assert set(np.unique(levels)) == {0, 1, 2}
  assert np.any(levels[:, 0] != levels[:, 2])
  assert np.any(levels[:, 2] != levels[:, 4])


@pytest.mark.parametrize('form', ['parallel', 'causal'])
def test_student_sees_the_stored_latents_of_each_level(form):
  config = RegressionConfig((*TIMES, 0.0), chunk=2, form=form)
  seen = []

  def predict(x, t):
    seen.append((x, t))
    return x

  loss, metrics = regression.loss(
    predict, trajectories(), jax.random.key(0), config
  )
  x, t = seen[0]
  if form == 'causal':
    np.testing.assert_array_equal(x[:, :5], trajectories()[:, -1])
    np.testing.assert_array_equal(t[:, :5], 0)
    x, t = x[:, 5:], t[:, 5:]
  level = np.argmin(np.abs(np.asarray(t)[..., None] - config.times), -1)
  expected = 100 * level + np.arange(5)
  np.testing.assert_array_equal(x[..., 0, 0, 0], expected)
  error = (100.0 * (level - 3)) ** 2
  np.testing.assert_allclose(loss, error[level < 3].mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics['error_750'], 200.0**2, rtol=1e-6)
  assert set(metrics) == {'error_1000', 'error_750', 'error_250'}


def test_past_of_the_causal_form_has_the_context_level():
  config = RegressionConfig(TIMES, chunk=2, form='causal', context_t=100.0)

  def predict(x, t):
    np.testing.assert_array_equal(t[:, :5], 100)
    spread = jnp.std(x[:, :5] - 0.9 * trajectories()[:, -1])
    np.testing.assert_allclose(spread, 0.1, rtol=0.4)
    return x

  regression.loss(predict, trajectories(), jax.random.key(0), config)


def test_regression_counts_marked_frames():
  config = RegressionConfig(TIMES, chunk=2)
  mask = jnp.arange(5) >= jnp.array([[1], [4], [5]])

  def loss(offset):
    def predict(x, t):
      return trajectories()[:, -1] + offset[..., None, None, None]

    key = jax.random.key(0)
    return regression.loss(predict, trajectories(), key, config, mask)[0]

  grad = jax.jit(jax.grad(loss))(jnp.ones((3, 5)))
  np.testing.assert_allclose(grad, 2 * mask / mask.sum(), rtol=1e-6)


def test_wrong_trajectories_and_times_are_named():
  config = RegressionConfig((1000.0, 500.0))
  with pytest.raises(UserError, match='hold 4 levels'):
    regression.loss(lambda x, t: x, trajectories(), jax.random.key(0), config)
  for times in ((500.0, 750.0), (), (0.0,), (1200.0,), (500.0, -1.0)):
    with pytest.raises(UserError, match='times'):
      RegressionConfig(times)


def test_grid_is_shifted_and_ends_clean():
  t = consistency.grid(ConsistencyConfig(steps=4, shift=5.0))
  expected = [1000, 937.5, 833.3333, 625, 0]
  np.testing.assert_allclose(t, expected, rtol=1e-5)
  assert consistency.grid(consistency.AAPT).shape == (33,)


def exact(x0):
  """The velocity of a model that knows the clean clip."""

  def velocity(x, t):
    sigma = flow.expand(jnp.maximum(t, 1e-3) / 1000, x)
    return (x - x0) / sigma

  return velocity


@pytest.mark.parametrize('level', ['clip', 'chunk'])
def test_a_perfect_student_has_no_loss_and_another_does(level):
  x0 = draw(0)
  config = ConsistencyConfig(steps=8, forcing='none', level=level, chunk=2)
  perfect = exact(x0)
  for teacher in (None, perfect):
    loss, _ = consistency.loss(
      perfect, perfect, x0, jax.random.key(1), config, teacher
    )
    np.testing.assert_allclose(loss, 0, atol=1e-8)
  loss, _ = consistency.loss(
    lambda x, t: 0.5 * perfect(x, t), perfect, x0, jax.random.key(1), config
  )
  assert loss > 0.01


def test_target_is_one_step_down_the_grid_with_the_teachers_velocity():
  x0 = draw(0)
  config = ConsistencyConfig(steps=4, shift=5.0, chunk=2, forcing='none')
  grid = np.asarray(consistency.grid(config))
  calls = {}

  def spy(name, value):
    def velocity(x, t):
      calls[name] = x, t
      return jnp.full_like(x, value)

    return velocity

  consistency.loss(
    spy('student', 0.0),
    spy('target', 0.0),
    x0,
    jax.random.key(1),
    config,
    spy('teacher', 2.0),
  )
  x, t = calls['student']
  next_x, next_t = calls['target']
  index = np.searchsorted(-grid, -np.asarray(t))
  np.testing.assert_allclose(grid[index], t)
  np.testing.assert_allclose(grid[index + 1], next_t)
  step = flow.expand((t - next_t) / 1000, x) * 2.0
  np.testing.assert_allclose(next_x, x - step, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(calls['teacher'][0], x)
  np.testing.assert_array_equal(t[:, 0], t[:, 1])


def test_no_gradient_flows_through_target_and_teacher():
  x0 = draw(0)
  config = ConsistencyConfig(steps=4, forcing='none')

  def loss(scale):
    models = [lambda x, t, s=s: s * x for s in scale]
    student, target, teacher = models
    return consistency.loss(
      student, target, x0, jax.random.key(1), config, teacher
    )[0]

  grad = jax.jit(jax.grad(loss))(jnp.array([0.5, 0.4, 0.3]))
  assert grad[0] != 0 and not np.any(grad[1:])


def test_teacher_forcing_shows_the_clean_past():
  x0, frames = draw(0), SHAPE[1]
  config = ConsistencyConfig(steps=4)

  def velocity(x, t):
    assert x.shape[1] == t.shape[1] == 2 * frames
    np.testing.assert_array_equal(x[:, :frames], x0)
    assert not np.any(t[:, :frames])
    return jnp.concatenate([1e6 * x[:, :frames], 0.1 * x[:, frames:]], 1)

  key = jax.random.key(1)
  loss, _ = consistency.loss(velocity, velocity, x0, key, config, velocity)
  alone, _ = consistency.loss(
    *(lambda x, t: 0.1 * x,) * 2,
    x0,
    key,
    ConsistencyConfig(steps=4, forcing='none'),
    lambda x, t: 0.1 * x,
  )
  np.testing.assert_allclose(loss, alone, rtol=1e-5)


def test_distances_and_weights():
  predicted, target = draw(0), draw(1)
  config = ConsistencyConfig(distance='huber')
  errors = consistency.frame_errors(predicted, target, config)
  norm = np.sqrt(np.sum((predicted - target) ** 2, (2, 3, 4)))
  scale = 0.00054 * 2.0  # four elements per frame
  expected = (np.sqrt(norm**2 + scale**2) - scale) / 2
  np.testing.assert_allclose(errors, expected, rtol=1e-5)
  flat = jax.grad(lambda x: jnp.sum(consistency.frame_errors(x, x, config)))(
    predicted
  )
  assert np.isfinite(flat).all()

  mask = jnp.arange(5) >= jnp.array([[0], [2], [5]])
  values = {}
  for weighting in ('none', 'step'):
    config = ConsistencyConfig(
      steps=1, shift=3.0, forcing='none', weighting=weighting
    )
    values[weighting] = consistency.loss(
      lambda x, t: 0.1 * x,
      lambda x, t: 0.2 * x,
      predicted,
      jax.random.key(0),
      config,
      mask=mask,
    )
  # One interval from 1 to 0: the weight is 1 and every frame is noisy.
  (plain, metrics), (weighted, _) = values['none'], values['step']
  np.testing.assert_allclose(plain, weighted, rtol=1e-6)
  np.testing.assert_allclose(plain, metrics['error_high'], rtol=1e-6)
  assert metrics['error_low'] == 0


@pytest.mark.parametrize('wrong', [{'steps': 0}, {'shift': 0.0}, {'chunk': 0}])
def test_wrong_settings_are_named(wrong):
  with pytest.raises(UserError, match=next(iter(wrong))):
    ConsistencyConfig(**wrong)
