"""Flow-matching algebra against the published scheduler."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.diffusion import flow

SHIFTS = [5, 8, 3, 1]


@pytest.fixture(scope='module')
def data():
  return golden.load('scheduler/inputs_outputs.npz')


@pytest.mark.parametrize('shift', SHIFTS)
def test_table_and_warped_lists(data, shift):
  prefix = f'shift{shift}.'
  table = flow.sigma_table(float(shift))
  golden.assert_close(table, data[prefix + 'sigmas'])
  np.testing.assert_allclose(
    1000 * table, data[prefix + 'timesteps'], rtol=1e-6
  )
  for name in ('sf4', 'diag2', 'l3', 'l5'):
    warped = flow.shift_t(data['list.' + name].astype(np.float64), shift)
    np.testing.assert_allclose(
      warped, data[prefix + 'warped.' + name], rtol=1e-6
    )
  mapped = np.clip(flow.shift_t(np.arange(1000) / 1.0, shift), 20, 980)
  np.testing.assert_allclose(
    mapped, data[prefix + 'dmd_timestep_map'], rtol=1e-5
  )


@pytest.mark.parametrize('shift', SHIFTS)
def test_conversions_with_published_table(data, shift):
  prefix = f'shift{shift}.'
  sigma = flow.table_sigma_at(data['timestep'], float(shift))
  golden.assert_close(sigma, data[prefix + 'sigma_used'])
  golden.assert_close(
    flow.add_noise(data['x0'], data['noise'], sigma),
    data[prefix + 'add_noise'],
  )
  golden.assert_close(
    flow.to_x0(data['xt'], data['flow'], sigma), data[prefix + 'flow_to_x0']
  )
  golden.assert_close(
    flow.to_velocity(data['xt'][:10], data['x0_pred'][:10], sigma[:10]),
    data[prefix + 'x0_to_flow'],
  )
  golden.assert_close(
    flow.training_target(data['x0'], data['noise']),
    data[prefix + 'training_target'],
  )


@pytest.mark.parametrize('shift', SHIFTS)
def test_euler_step(data, shift):
  prefix = f'shift{shift}.'
  table = np.append(flow.sigma_table(float(shift)), 0)
  sigma = flow.table_sigma_at(data['timestep'], float(shift))
  index = np.abs(table[None] - np.asarray(sigma)[:, None]).argmin(-1)
  following = table[index + 1].astype(np.float32)
  actual = flow.euler_step(data['xt'], data['flow'], sigma, following)
  golden.assert_close(actual[:10], data[prefix + 'step'])
  # Published code sends the whole batch to sigma 0 if one row is at the end.
  actual = flow.euler_step(data['xt'], data['flow'], sigma, 0.0)
  golden.assert_close(actual, data[prefix + 'step_with_last'])


@pytest.mark.parametrize('shift', SHIFTS)
def test_training_weight(data, shift):
  prefix = f'shift{shift}.'
  t = 1000 * flow.sigma_table(float(shift))
  golden.assert_close(
    flow.training_weight(t, float(shift)), data[prefix + 'training_weights']
  )
  # Off the table the weight is evaluated, not looked up: snap first.
  snapped = 1000 * flow.table_sigma_at(data['timestep'], float(shift))
  golden.assert_close(
    flow.training_weight(snapped, float(shift)),
    data[prefix + 'training_weight'],
  )
  assert (flow.training_weight(jnp.arange(0, 1001.0), float(shift)) >= 0).all()


def test_exact_sigma_and_inverse_shift():
  t = jnp.array([0.0, 357.142853, 833.3333, 1000.0])
  np.testing.assert_allclose(flow.sigma_at(t), t / 1000, rtol=1e-7)
  np.testing.assert_allclose(
    flow.unshift_t(flow.shift_t(t, 5.0), 5.0), t, rtol=1e-5, atol=1e-4
  )
  assert flow.shift_t(100.0, 5.0) == pytest.approx(357.142857)
  assert flow.sigma_at(0.0) == 0


@pytest.mark.parametrize('levels', [(), (2,), (2, 3)])
def test_noise_levels_per_video_and_per_frame(levels):
  """One level for all, per video or per frame; conversions are inverse."""
  x0, noise = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 5, 6))
  sigma = jax.random.uniform(jax.random.key(1), levels, minval=0.1)
  x = jax.jit(flow.add_noise)(x0, noise, sigma)
  velocity = flow.training_target(x0, noise)
  np.testing.assert_allclose(flow.to_x0(x, velocity, sigma), x0, atol=1e-5)
  np.testing.assert_allclose(
    flow.to_velocity(x, x0, sigma), velocity, atol=1e-4
  )
  np.testing.assert_allclose(
    flow.euler_step(x, velocity, sigma, 0 * sigma), x0, atol=1e-5
  )
