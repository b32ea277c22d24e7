"""Flow matching: one noise level per clip, or one per chunk.

One level per clip trains a bidirectional teacher. One per chunk trains a
causal model, either by *diffusion forcing* (every chunk sees its noisy past)
or by *teacher forcing* (every chunk sees its clean past, which runs beside it
in the same pass). Sources: Lipman et al. 2023; Esser et al. 2024 (logit-normal
times); Chen et al. 2024 (diffusion forcing); Self-Forcing `model/diffusion.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.errors import UserError

# (latents [B, F, H, W, C], time steps [B, F]) -> velocity of the same shape.
Velocity = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class FlowConfig:
  """How noise levels are drawn and errors weighed.

  Attributes:
    forcing: 'none' (one level per clip), 'diffusion' or 'teacher' (one per
      chunk).
    chunk: latent frames per chunk.
    times: distribution of raw time steps: 'logit_normal' or 'uniform'.
    mean: of the normal distribution, in logits; above 0 = more noise.
    std: of the normal distribution, in logits.
    shift: bends raw time steps towards noise, 1 = not.
    weighting: 'none' or 'bell', the published loss weight.
    staggered: probability that the first latent frame of a clip gets a level
      of its own. With one level for all, wherever a thing can be seen its
      motion can be seen too, and the caption's word for the direction is
      hardly ever needed; after a clean first frame it is all there is.
    context_t: time step of the past that teacher forcing shows; 0 = clean.
      The same level must be kept at inference.
  """

  forcing: Literal['none', 'diffusion', 'teacher'] = 'none'
  chunk: int = 3
  times: Literal['logit_normal', 'uniform'] = 'logit_normal'
  mean: float = 0.0
  std: float = 1.0
  shift: float = 1.0
  weighting: Literal['none', 'bell'] = 'none'
  staggered: float = 0.0
  context_t: float = 0.0

  def __post_init__(self):
    if self.chunk < 1:
      raise UserError(f'chunk must be >= 1, not {self.chunk}')
    if self.shift <= 0 or self.std <= 0:
      raise UserError('shift and std must be > 0')
    if not 0 <= self.staggered <= 1:
      raise UserError(f'staggered must be in [0, 1], not {self.staggered}')
    if not 0 <= self.context_t < 1000:
      raise UserError(f'context_t must be in [0, 1000), not {self.context_t}')


def sample_times(
  key: jax.Array, config: FlowConfig, batch: int, frames: int
) -> jax.Array:
  """Shifted time steps `[B, F]`, equal within a clip or within each chunk.

  The first frame of clips that `config.staggered` chooses has its own.
  """
  chunk = frames if config.forcing == 'none' else config.chunk
  if not config.staggered:
    return _draw_times(key, config, batch, frames, chunk)
  choose, own, shared = jax.random.split(key, 3)
  t = _draw_times(shared, config, batch, frames, chunk)
  first = _draw_times(own, config, batch, 1, 1)
  chosen = jax.random.bernoulli(choose, config.staggered, (batch, 1))
  return t.at[:, :1].set(jnp.where(chosen, first, t[:, :1]))


def _draw_times(key, config, batch, frames, chunk):
  shape = (batch, -(-frames // chunk))
  if config.times == 'uniform':
    # In (0, 1]: the model is asked at t = 1000, never at 0.
    raw = 1 - jax.random.uniform(key, shape)
  else:
    normal = jax.random.normal(key, shape)
    raw = jax.nn.sigmoid(config.mean + config.std * normal)
  t = flow.shift_t(1000 * raw, config.shift)
  return jnp.repeat(t, chunk, axis=1)[:, :frames]


def clip_errors(
  velocity: Velocity,
  x0: jax.Array,
  noise: jax.Array,
  t: jax.Array,
  config: FlowConfig,
  weight: jax.Array | None = None,
  context_noise: jax.Array | None = None,
  target: jax.Array | None = None,
) -> jax.Array:
  """Weighted squared error of each clip `[B]`; clips do not mix.

  Args:
    velocity: the model. Under teacher forcing it is called with
      `[context | noisy]`, 2 F frames, and must mask accordingly.
    x0: clean latents `[B, F, H, W, C]`.
    noise: like `x0`.
    t: time steps `[B, F]`.
    config: settings.
    weight: of each frame `[B, F]`; None = all the same.
    context_noise: like `x0`; needed when `context_t` > 0.
    target: velocity to predict, like `x0`; None = noise - x0.
  """
  frames = x0.shape[1]
  x = flow.add_noise(x0, noise, flow.sigma_at(t))
  if config.forcing == 'teacher':
    past, level = x0, jnp.full_like(t, config.context_t)
    if config.context_t:
      past = flow.add_noise(x0, context_noise, flow.sigma_at(level))
    both = jnp.concatenate([past, x], 1)
    predicted = velocity(both, jnp.concatenate([level, t], 1))[:, frames:]
  else:
    predicted = velocity(x, t)
  if target is None:
    target = flow.training_target(x0, noise)
  error = jnp.square(predicted - target)
  error = jnp.mean(error, axis=(2, 3, 4))
  if config.weighting == 'bell':
    error = error * flow.training_weight(t, config.shift)
  if weight is None:
    return jnp.mean(error, axis=1)
  return jnp.sum(error * weight, 1) / jnp.maximum(jnp.sum(weight, 1), 1e-6)


def loss(
  velocity: Velocity,
  x0: jax.Array,
  key: jax.Array,
  config: FlowConfig,
  weight: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean error of a batch at random noise levels.

  Args:
    velocity: the model, see `clip_errors`.
    x0: clean latents `[B, F, H, W, C]`.
    key: randomness of levels and noise.
    config: settings.
    weight: of each frame `[B, F]`; None = all the same.

  Returns:
    The scalar loss and metrics: mean errors of the less and the more noisy
    clips are far steadier to watch than their mixture.
  """
  t_key, noise_key, context_key = jax.random.split(key, 3)
  batch, frames = x0.shape[:2]
  t = sample_times(t_key, config, batch, frames)
  noise = jax.random.normal(noise_key, x0.shape)
  context_noise = None
  if config.context_t:
    context_noise = jax.random.normal(context_key, x0.shape)
  errors = clip_errors(velocity, x0, noise, t, config, weight, context_noise)
  noisy = jnp.mean(t, 1) > 500

  def mean_of(chosen):
    count = jnp.maximum(jnp.sum(chosen), 1)
    return jnp.sum(jnp.where(chosen, errors, 0)) / count

  metrics = {'error_low': mean_of(~noisy), 'error_high': mean_of(noisy)}
  return jnp.mean(errors), metrics
