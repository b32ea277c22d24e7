"""Distribution matching and SiD: published values, gradients, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import assert_close, load

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives import dmd, sid, times
from jaxvid.objectives.dmd import DMDConfig
from jaxvid.objectives.sid import SiDConfig

# Guidance as published: real + guidance (real - uncond), usual weight + 1.
CASES = {
  'g3': (3.0, DMDConfig(shift=5.0, table=True)),
  'shift8_mask': (4.0, DMDConfig(shift=8.0, table=True)),
}


def last(x):
  """[B, F, C, H, W] -> [B, F, H, W, C]."""
  return jnp.moveaxis(jnp.asarray(x), 2, -1)


def case(name):
  data = load('dmd/inputs_outputs.npz')
  data = {
    key.removeprefix(f'{name}.'): value
    for key, value in data.items()
    if key.startswith(f'{name}.')
  }
  video = {k: last(v) if v.ndim == 5 else v for k, v in data.items()}
  guidance, config = CASES.get(name, CASES['g3'])
  cond, uncond = video['real_cond'], video['real_uncond']
  video['real'] = cond + guidance * (cond - uncond)
  mask = video.get('gradient_mask')
  video['mask'] = None if mask is None else mask[..., 0, 0, 0]
  return video, config


def draw(seed, shape=(2, 5, 2, 3, 2)):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('name', CASES)
def test_generator_loss_is_the_published_one(name):
  data, config = case(name)
  t = times.from_raw(data['randint'], config)
  assert_close(t[:, None].repeat(6, 1), data['timestep'])
  level = times.sigma(t, config)
  noisy = flow.add_noise(data['x0'], data['noise'], level)
  assert_close(noisy, data['noisy'])

  x, fake, real = data['x0'], data['fake_cond'], data['real']
  plain = dmd.gradient(x, fake, real, normalise=False)
  assert_close(plain, data['kl_grad_unnormalised'])
  grad = dmd.gradient(x, fake, real)
  assert_close(grad, data['kl_grad'])

  loss, dx = jax.value_and_grad(
    lambda x: dmd.surrogate(x, dmd.gradient(x, fake, real), data['mask'])
  )(x)
  assert_close(loss, data['dmd_loss_f64'])
  assert_close(dx, data['dmd_dloss_dx'], relative=True)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('kind', ['flow', 'x0'])
def test_critic_loss_is_the_published_one(name, kind):
  data, config = case(name)
  config = DMDConfig(shift=config.shift, table=True, critic=kind)
  t = jnp.asarray(data['critic_timestep'][:, 0])
  level = times.sigma(t, config)
  x, noise = data['x0'], data['noise']
  assert_close(flow.add_noise(x, noise, level), data['critic_noisy'])

  def loss(predicted):
    def velocity(x_t, t):
      del t
      return flow.to_velocity(x_t, predicted, level)

    return dmd.critic_error(velocity, x, noise, t, config)

  value, grad = jax.value_and_grad(loss)(data['fake_cond'])
  assert_close(value, data[f'critic_loss_{kind}'])
  assert_close(grad, data[f'critic_dloss_dpred_{kind}'], relative=True)


def test_no_difference_is_no_gradient_even_where_the_normaliser_is_zero():
  data, _ = case('zero')
  grad = dmd.gradient(data['x0'], data['fake_cond'], data['real'])
  assert_close(grad, data['kl_grad'])
  assert not np.any(grad[0])


def test_a_broken_network_is_not_hidden():
  x = draw(0)
  grad = dmd.gradient(x, jnp.full_like(x, jnp.nan), draw(1))
  assert np.isnan(grad).all()


def test_whole_loss_is_its_parts_and_nothing_flows_through_the_scores():
  config, x, key = DMDConfig(), draw(0), jax.random.key(3)
  mask = jnp.arange(5) >= jnp.array([[3], [1]])

  def real(x_t, t):
    return 0.5 * x_t + t[:, None, None, None, None] / 1000

  def fake(x_t, t):
    return 0.3 * x_t**2

  def of(x):
    return dmd.generator_loss(real, fake, x, key, config, mask)[0]

  loss, grad = jax.jit(jax.value_and_grad(of))(x)
  fake_x0, real_x0, t = dmd.predictions(real, fake, x, key, config)
  direction = dmd.gradient(x, fake_x0, real_x0)
  counted = direction * mask[..., None, None, None]
  elements = mask.sum() * x[0, 0].size
  np.testing.assert_allclose(grad, counted / elements, rtol=1e-5)
  np.testing.assert_allclose(loss, 0.5 * np.sum(counted**2) / elements, 1e-5)
  assert t.shape == (2,) and t[0] != t[1]


def test_times_are_shifted_and_within_bounds():
  config = DMDConfig(min_score_timestep=100)
  t = times.sample_times(jax.random.key(0), config, 4000)
  assert t.shape == (4000,)
  assert t.max() == 980 and t.min() >= flow.shift_t(100, 5.0)
  plain = times.sample_times(jax.random.key(0), DMDConfig(shift=1.0), 4000)
  assert plain.min() == 20 and abs(np.median(plain) - 500) < 30


def test_critic_loss_teaches_the_critic_only():
  x, key = draw(0), jax.random.key(1)

  def loss(weight, x):
    return dmd.critic_loss(lambda x, t: weight * x, x, key, DMDConfig())[0]

  weight_grad, x_grad = jax.grad(loss, (0, 1))(0.1, x)
  assert weight_grad != 0 and not np.any(x_grad)


def test_masked_frames_do_not_count_in_the_critic_loss():
  x, config = draw(0), DMDConfig()
  mask = jnp.arange(5) < jnp.array([[5], [2]])

  def loss(offset, mask):
    def velocity(x, t):
      return 0.1 * x + offset * (jnp.arange(5) >= 2)[:, None, None, None]

    return dmd.critic_loss(velocity, x, jax.random.key(0), config, mask)[0]

  late = mask & (jnp.arange(5) < 2)
  assert loss(9.0, late) == loss(0.0, late)
  assert loss(9.0, mask) != loss(0.0, mask)


@pytest.mark.parametrize(
  'objective, config',
  [(dmd, DMDConfig()), (sid, SiDConfig()), (sid, SiDConfig(alpha=1.2))],
)
def test_generator_moves_to_the_teachers_distribution(objective, config):
  """Unit Gaussians whose exact denoisers are known: the means must meet."""
  goal, noise = 2.0, draw(0, (64, 1, 2, 2, 1))

  def denoiser(mean):
    def x0(x_t, t):
      s = flow.expand(t / 1000, x_t)
      gain = (1 - s) / ((1 - s) ** 2 + s**2)
      return mean + gain * (x_t - (1 - s) * mean)

    return x0

  def step(mean, key):
    def loss(moved):
      x = moved + noise
      return objective.generator_loss(
        denoiser(goal), denoiser(mean), x, key, config
      )[0]

    return mean - jax.grad(loss)(mean), None

  keys = jax.random.split(jax.random.key(7), 60)
  mean, _ = jax.lax.scan(step, 0.0, keys)
  assert abs(mean - goal) < 0.2


def test_sid_is_the_loss_of_its_paper_and_flows_through_both_scores():
  x, key = draw(0), jax.random.key(5)
  config = SiDConfig(alpha=0.7, normalise=False, shift=3.0)

  def real(x_t, t):
    return jnp.sin(x_t)

  def fake(x_t, t):
    return 0.4 * x_t**2

  def loss(x):
    return sid.generator_loss(real, fake, x, key, config)[0]

  def paper(x):
    x_t, _, t = times.diffuse(x, key, config)
    difference = real(x_t, t) - fake(x_t, t)
    both = 0.3 * difference**2 + difference * (fake(x_t, t) - x)
    return jnp.mean(both)

  np.testing.assert_allclose(loss(x), paper(x), rtol=1e-5)
  np.testing.assert_allclose(
    jax.grad(loss)(x), jax.grad(paper)(x), rtol=1e-3, atol=1e-7
  )
  direction = draw(9)
  step = 1e-2
  slope = (loss(x + step * direction) - loss(x - step * direction)) / step / 2
  np.testing.assert_allclose(
    slope, jnp.sum(jax.grad(loss)(x) * direction), rtol=2e-3
  )


def test_sid_leaves_out_masked_frames_and_survives_a_perfect_teacher():
  x, key = draw(0), jax.random.key(5)
  mask = jnp.arange(5) >= jnp.array([[2], [4]])

  def loss(x, real):
    return sid.generator_loss(
      real, lambda x, t: 0 * x, x, key, SiDConfig(), mask
    )[0]

  grad = jax.grad(loss)(x, lambda x, t: 0.5 * x)
  assert np.all(np.any(grad, axis=(2, 3, 4)) == mask)
  assert loss(x, lambda x_t, t: x) == 0


@pytest.mark.parametrize(
  'wrong', [{'min_t': 980.0}, {'max_t': 1001.0}, {'shift': 0.0}]
)
def test_wrong_settings_are_named(wrong):
  with pytest.raises(UserError, match=next(iter(wrong))):
    DMDConfig(**wrong)
