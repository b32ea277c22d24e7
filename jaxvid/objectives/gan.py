"""Adversarial losses on generated clips, with approximate R1 and R2.

Two losses: non-saturating, each clip judged alone, and relativistic pairing,
a generated clip judged against the real one of the same prompt. Penalties on
the discriminator's gradient are estimated by its change under a little noise.
Sources: Self-Forcing `model/gan.py` (not runnable as released); APT and AAPT
(supplement D eq. 1 to 3); Jolicoeur-Martineau 2018 (relativistic pairing).
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives.times import (
  Denoiser,
  TimesConfig,
  sample_times,
  sigma,
)


@dataclasses.dataclass(frozen=True)
class GANConfig(TimesConfig):
  """Settings of the adversarial losses.

  Attributes:
    relativistic: judge pairs instead of single clips.
    noised: the discriminator sees noisy clips (Self-Forcing); False shows
      clean ones and gives the time step only as an input (APT, AAPT).
    generator_weight: factor of the generator's loss.
    discriminator_weight: factor of the discriminator's loss, penalties not
      included.
    r1: weight of the penalty on real clips; 0 spares its pass.
    r2: weight of the penalty on generated clips.
    penalty_sigma: size of the penalties' noise.
    scaled: measure the change of logits per unit of noise, as Self-Forcing
      does; False measures the change itself, as AAPT prints it. The weights
      differ by `penalty_sigma` squared.
  """

  relativistic: bool = False
  noised: bool = True
  generator_weight: float = 1e-2
  discriminator_weight: float = 1e-2
  r1: float = 0.0
  r2: float = 0.0
  penalty_sigma: float = 0.01
  scaled: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.penalty_sigma <= 0:
      raise UserError(f'penalty_sigma must be > 0, not {self.penalty_sigma}')
    if min(self.r1, self.r2) < 0:
      raise UserError(f'r1={self.r1} and r2={self.r2} must be >= 0')


SELF_FORCING = GANConfig()  # *released code's defaults*
AAPT = GANConfig(  # *paper*
  min_t=0.0,
  max_t=1000.0,
  shift=1.0,
  relativistic=True,
  noised=False,
  generator_weight=1.0,
  discriminator_weight=1.0,
  r1=1000.0,
  r2=1000.0,
  penalty_sigma=0.1,
  scaled=False,
)


def generator_error(
  fake_logits: jax.Array, real_logits: jax.Array, config: GANConfig
) -> jax.Array:
  """Loss of the generator, unweighted.

  Args:
    fake_logits: of generated clips `[B, K]`, high = real.
    real_logits: of real clips; the plain loss does not read them.
    config: settings.
  """
  margin = fake_logits
  if config.relativistic:
    margin = fake_logits - real_logits
  return jnp.mean(jax.nn.softplus(-margin))


def discriminator_error(
  fake_logits: jax.Array, real_logits: jax.Array, config: GANConfig
) -> jax.Array:
  """Loss of the discriminator, unweighted; logits `[B, K]`, high = real."""
  if config.relativistic:
    return jnp.mean(jax.nn.softplus(fake_logits - real_logits))
  real = jnp.mean(jax.nn.softplus(-real_logits))
  return real + jnp.mean(jax.nn.softplus(fake_logits))


def penalty(
  logits: Denoiser,
  x: jax.Array,
  t: jax.Array,
  judged: jax.Array,
  key: jax.Array,
  config: GANConfig,
) -> jax.Array:
  """Mean squared change of logits under a little noise, unweighted.

  With `scaled` it estimates the mean square of the gradient's norm, without
  a second derivative (APT).

  Args:
    logits: the discriminator: `(x, t [B]) -> [B, K]`.
    x: what it judged `[B, F, H, W, C]`.
    t: time steps `[B]`.
    judged: its logits at `x`.
    key: randomness of the noise.
    config: settings.
  """
  size = config.penalty_sigma
  moved = logits(x + size * jax.random.normal(key, x.shape), t)
  change = moved - judged
  return jnp.mean(jnp.square(change / size if config.scaled else change))


def _seen(x, noise, t, config):
  """What the discriminator sees of a clip."""
  if not config.noised:
    return x
  return flow.add_noise(x, noise, sigma(t, config))


def generator_loss(
  logits: Denoiser,
  fake: jax.Array,
  real: jax.Array,
  key: jax.Array,
  config: GANConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted loss of the generator.

  Args:
    logits: the discriminator: `(x, t [B]) -> [B, K]`; parameters frozen by
      the caller.
    fake: generated latents `[B, F, H, W, C]`, with gradient.
    real: real latents of the same prompts, like `fake`.
    key: randomness of levels and noise.
    config: settings.

  Returns:
    The scalar loss and metrics.
  """
  t_key, fake_key, real_key = jax.random.split(key, 3)
  t = sample_times(t_key, config, fake.shape[0])
  noise = jax.random.normal(fake_key, fake.shape)
  fake_logits = logits(_seen(fake, noise, t, config), t)
  real_logits = jnp.zeros_like(fake_logits)
  if config.relativistic:
    noise = jax.random.normal(real_key, real.shape)
    real_logits = logits(_seen(real, noise, t, config), t)
  error = generator_error(fake_logits, real_logits, config)
  return config.generator_weight * error, {'gan_generator': error}


def discriminator_loss(
  logits: Denoiser,
  fake: jax.Array,
  real: jax.Array,
  key: jax.Array,
  config: GANConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted loss of the discriminator with its penalties.

  As upstream, generated and real clips are seen through the same noise.

  Args:
    logits: the discriminator: `(x, t [B]) -> [B, K]`.
    fake: generated latents `[B, F, H, W, C]`; treated as constant.
    real: real latents of the same prompts, like `fake`.
    key: randomness of levels and noise.
    config: settings.

  Returns:
    The scalar loss and metrics; `gan_accuracy` is the share of pairs in
    which the real clip scores higher.
  """
  t_key, noise_key, r1_key, r2_key = jax.random.split(key, 4)
  t = sample_times(t_key, config, fake.shape[0])
  noise = jax.random.normal(noise_key, fake.shape)
  fake = _seen(jax.lax.stop_gradient(fake), noise, t, config)
  real = _seen(real, noise, t, config)
  fake_logits, real_logits = logits(fake, t), logits(real, t)
  error = discriminator_error(fake_logits, real_logits, config)
  loss = config.discriminator_weight * error
  metrics = {
    'gan_discriminator': error,
    'gan_accuracy': jnp.mean(real_logits > fake_logits),
  }
  if config.r1:
    metrics['gan_r1'] = penalty(logits, real, t, real_logits, r1_key, config)
    loss = loss + config.r1 * metrics['gan_r1']
  if config.r2:
    metrics['gan_r2'] = penalty(logits, fake, t, fake_logits, r2_key, config)
    loss = loss + config.r2 * metrics['gan_r2']
  return loss, metrics
