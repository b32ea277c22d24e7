"""Adversarial losses, their penalties, and the discriminator's head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case

from jaxvid.errors import UserError
from jaxvid.models.discriminator import (
  Discriminator,
  DiscriminatorConfig,
  discriminate,
)
from jaxvid.models.dit import WAN_1_3B, DiT
from jaxvid.objectives import gan
from jaxvid.objectives.gan import GANConfig

SHAPE = (4, 2, 2, 2, 1)


def draw(seed, shape=SHAPE):
  return jax.random.normal(jax.random.key(seed), shape)


def linear(weight):
  """A discriminator whose gradient is known."""

  def logits(x, t):
    return jnp.sum(x * weight, (1, 2, 3, 4))[:, None]

  return logits


def test_losses_are_softplus_of_margins():
  fake, real = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [-1.0]])
  plain, pairs = GANConfig(), GANConfig(relativistic=True)
  softplus = jax.nn.softplus
  expected = {
    'g': jnp.mean(softplus(-fake)),
    'd': jnp.mean(softplus(-real)) + jnp.mean(softplus(fake)),
    'g_pairs': jnp.mean(softplus(real - fake)),
    'd_pairs': jnp.mean(softplus(fake - real)),
  }
  got = {
    'g': gan.generator_error(fake, real, plain),
    'd': gan.discriminator_error(fake, real, plain),
    'g_pairs': gan.generator_error(fake, real, pairs),
    'd_pairs': gan.discriminator_error(fake, real, pairs),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-6)


def test_penalty_estimates_the_squared_gradient():
  weight = draw(1, SHAPE[1:])
  x, t = draw(0, (4096, *SHAPE[1:])), jnp.zeros(4096)
  logits = linear(weight)
  norm = float(jnp.sum(weight**2))
  for config, expected in (
    (GANConfig(penalty_sigma=0.1), norm),
    (GANConfig(penalty_sigma=0.1, scaled=False), 0.01 * norm),
  ):
    value = gan.penalty(logits, x, t, logits(x, t), jax.random.key(2), config)
    np.testing.assert_allclose(value, expected, rtol=0.1)


@pytest.mark.parametrize('config', [gan.SELF_FORCING, gan.AAPT])
def test_generator_and_discriminator_pull_apart(config):
  """One step of each changes the logits in its own favour."""
  fake, real, key = draw(0) - 1, draw(1) + 1, jax.random.key(3)
  weight = draw(2, SHAPE[1:]) * 0.1
  if config.r1:
    config = dataclasses.replace(config, r1=1.0, r2=1.0)

  def generator(fake, real):
    return gan.generator_loss(linear(weight), fake, real, key, config)[0]

  def discriminator(weight, fake):
    return gan.discriminator_loss(linear(weight), fake, real, key, config)

  moved = fake - jax.jit(jax.grad(generator))(fake, real)
  t = jnp.zeros(4)
  assert np.all(linear(weight)(moved, t) > linear(weight)(fake, t))

  grads, metrics = jax.jit(jax.grad(discriminator, (0, 1), has_aux=True))(
    weight, fake
  )
  better = linear(weight - 0.1 * grads[0])
  gap = jnp.mean(better(real, t) - better(fake, t))
  assert gap > jnp.mean(linear(weight)(real, t) - linear(weight)(fake, t))
  assert not np.any(grads[1])
  assert ('gan_r1' in metrics) == bool(config.r1)


def test_pairs_matter_only_to_the_relativistic_loss():
  fake, key = draw(0), jax.random.key(3)
  for relativistic in (False, True):
    config = GANConfig(relativistic=relativistic)
    values = {
      float(gan.generator_loss(linear(1.0), fake, draw(i), key, config)[0])
      for i in (1, 2)
    }
    assert len(values) == 1 + relativistic


def test_adversarial_training_finds_the_real_mean():
  config = GANConfig(
    relativistic=True,
    noised=False,
    generator_weight=1.0,
    discriminator_weight=1.0,
    r1=0.1,
    r2=0.1,
  )
  noise = draw(0, (64, 1, 2, 2, 1))
  real = 1.5 + draw(1, noise.shape)

  def step(state, key):
    mean, weight = state
    d_key, g_key = jax.random.split(key)

    def judged(weight):
      fake = mean + noise
      return gan.discriminator_loss(linear(weight), fake, real, d_key, config)

    def made(mean):
      fake = mean + noise
      return gan.generator_loss(linear(weight), fake, real, g_key, config)

    weight = weight - 0.2 * jax.grad(judged, has_aux=True)(weight)[0]
    return (mean - 0.2 * jax.grad(made, has_aux=True)(mean)[0], weight), None

  keys = jax.random.split(jax.random.key(7), 80)
  (mean, _), _ = jax.lax.scan(step, (0.0, 0.0), keys)
  assert abs(mean - 1.5) < 0.2


def test_wrong_settings_are_named():
  with pytest.raises(UserError, match='penalty_sigma'):
    GANConfig(penalty_sigma=0.0)
  with pytest.raises(UserError, match='r1'):
    GANConfig(r1=-1.0)


def _clip():
  rows, columns = wan_case.LATENT
  sizes = wan_case.config()
  shape = (2, 3, 2 * rows, 2 * columns, sizes.in_dim)
  text = draw(1, (2, 4, sizes.text_dim))
  return draw(0, shape), jnp.array([300.0, 800.0]), text


def test_features_are_the_same_in_both_layouts_and_leave_velocity_alone():
  x, t, text = _clip()
  found = {}
  for scan in (True, False):
    dit, variables = wan_case.network(scan)

    @jax.jit
    def both(variables, dit=dit):
      velocity, _ = dit.apply(variables, x, t, text)
      same, tokens = dit.apply(variables, x, t, text, (0, 1), method='features')
      return velocity, same, tokens

    velocity, same, tokens = both(variables)
    np.testing.assert_allclose(same, velocity, atol=1e-5)
    assert [k.shape for k in tokens] == [(2, 3, 6, dit.config.dim)] * 2
    found[scan] = tokens
  for stacked, unrolled in zip(found[True], found[False], strict=True):
    np.testing.assert_allclose(stacked, unrolled, atol=1e-5)
  assert not np.allclose(*found[True])
  with pytest.raises(UserError, match='99'):
    dit.apply(variables, x, t, text, (99,), method='features')


def _judge(**settings):
  dit, variables = wan_case.network(scan=True)
  config = DiscriminatorConfig(dit.config, layers=(0, 1), ffn_dim=8, **settings)
  head = Discriminator(config)
  features = (jnp.zeros((1, 1, 1, dit.config.dim)),) * 2
  fresh = jax.jit(head.init)(jax.random.key(4), features)
  params = {'dit': variables['params'], 'head': fresh['params']}
  return dit, head, params


def test_discriminator_learns_backbone_and_head():
  x, t, text = _clip()
  dit, head, params = _judge()

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    logits = discriminate(dit, head, params, x, t, text)
    return jnp.mean(jax.nn.softplus(logits * jnp.array([[1.0], [-1.0]])))

  start, grads = loss(params)
  flat = jax.tree.leaves_with_path(grads)
  # The last block feeds the velocity too, but its head is not judged.
  idle = {jax.tree_util.keystr(path) for path, leaf in flat if not np.any(leaf)}
  assert all("['dit']['head']" in name for name in idle)
  params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
  assert loss(params)[0] < start


def test_frames_are_judged_alone_where_asked():
  dit, head, params = _judge(per_frame=True, logits=2)
  features = tuple(draw(i, (2, 3, 4, dit.config.dim)) for i in (0, 1))
  run = jax.jit(lambda f: head.apply({'params': params['head']}, f))
  logits = run(features)
  assert logits.shape == (2, 6)
  moved = run(tuple(f.at[:, 2].multiply(-1.0) for f in features))
  changed = ~np.isclose(logits, moved).reshape(2, 3, 2)
  np.testing.assert_array_equal(changed.all((0, 2)), [False, False, True])
  assert not changed[:, :2].any()


def test_full_size_head_follows_the_published_one():
  config = DiscriminatorConfig(WAN_1_3B)
  x = jnp.zeros((1, 21, 60, 104, 16))
  text, t = jnp.zeros((1, 512, 4096)), jnp.zeros(1)
  dit, head = DiT(WAN_1_3B), Discriminator(config)

  def judge(x, t, text):
    dit_params = dit.init(jax.random.key(0), x, t, text)['params']
    features = (jnp.zeros((1, 21, 1560, 1536)),) * 3
    params = head.init(jax.random.key(1), features)['params']
    both = {'dit': dit_params, 'head': params}
    return params, discriminate(dit, head, both, x, t, text)

  params, logits = jax.eval_shape(judge, x, t, text)
  assert logits.shape == (1, 1)
  assert params['registers'].shape == (3, 1536)
  assert params['head_0']['kernel'].shape == (4608, 1536)
  assert params['blocks_0']['ffn_0']['kernel'].shape == (1536, 8192)
  with pytest.raises(UserError, match='0 to 29'):
    DiscriminatorConfig(WAN_1_3B, layers=(30,))
