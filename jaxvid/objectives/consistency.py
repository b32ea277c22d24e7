"""Causal consistency: a student that says the same along a whole trajectory.

Neighbouring points of one trajectory must lead to the same clean clip. The
step between them is the teacher's (distillation; no stored ODE pairs), or the
straight line of the true noise (training without a teacher). Sources: Song et
al. 2023; Song & Dhariwal 2024 (improved: no average of the target, weight
1 / step, pseudo-Huber); Causal Forcing (arXiv 2602.02214), teacher-forced, as
an initialiser of few-step students; AAPT supplement D.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives.flow_matching import Velocity
from jaxvid.objectives.masks import masked_mean


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
  """The grid of levels and how errors are measured.

  Attributes:
    steps: intervals N of the grid, from 1000 to 0.
    shift: bends the grid towards noise.
    level: one level per 'clip', or one per 'chunk'.
    chunk: latent frames per chunk.
    forcing: 'teacher' shows the clean past beside the noisy clip in one
      pass; 'none' leaves the past to the callables.
    distance: 'mse', or 'huber': the pseudo-Huber distance of each frame.
    huber: its scale, times the root of the elements of a frame.
    weighting: 'none', or 'step': 1 / (sigma_n - sigma_{n+1}), which turns
      the error into a slope along the trajectory.
  """

  steps: int = 48
  shift: float = 5.0
  level: Literal['clip', 'chunk'] = 'chunk'
  chunk: int = 3
  forcing: Literal['none', 'teacher'] = 'teacher'
  distance: Literal['mse', 'huber'] = 'mse'
  huber: float = 0.00054
  weighting: Literal['none', 'step'] = 'none'

  def __post_init__(self):
    for name in ('steps', 'chunk'):
      if getattr(self, name) < 1:
        raise UserError(f'{name} must be >= 1, not {getattr(self, name)}')
    for name in ('shift', 'huber'):
      if getattr(self, name) <= 0:
        raise UserError(f'{name} must be > 0, not {getattr(self, name)}')


# Grid and shift: *released code* of Causal Forcing (there one level per
# clip, guidance weight 3, target averaged with decay 0.99).
CAUSAL_FORCING = ConsistencyConfig()
# *paper*: 32 steps, shift 24, no guidance, no average of the target, the clean
# past by channels (hence no forcing here). Distance and weighting are those of
# the technique it cites.
AAPT = ConsistencyConfig(
  steps=32,
  shift=24.0,
  level='clip',
  forcing='none',
  distance='huber',
  weighting='step',
)


def grid(config: ConsistencyConfig) -> jax.Array:
  """Time steps `[N + 1]` from 1000 to 0.

  The last step ends at 0, where a velocity model returns its input: this
  boundary is what ties the student to the data.
  """
  raw = 1000 * jnp.arange(config.steps, -1, -1) / config.steps
  return flow.shift_t(raw, config.shift)


def sample_levels(
  key: jax.Array, config: ConsistencyConfig, batch: int, frames: int
) -> jax.Array:
  """Indices 0..N-1 of intervals, `[B, F]`, equal per clip or chunk."""
  chunk = frames if config.level == 'clip' else config.chunk
  shape = (batch, -(-frames // chunk))
  levels = jax.random.randint(key, shape, 0, config.steps)
  return jnp.repeat(levels, chunk, axis=1)[:, :frames]


def frame_errors(
  predicted: jax.Array, target: jax.Array, config: ConsistencyConfig
) -> jax.Array:
  """Distance of two clips for every frame, `[B, F]`, per element."""
  squared = jnp.square(predicted - target)
  if config.distance == 'mse':
    return jnp.mean(squared, (2, 3, 4))
  size = squared[0, 0].size
  scale = config.huber * size**0.5
  distance = jnp.sqrt(jnp.sum(squared, (2, 3, 4)) + scale**2) - scale
  # The plain distance grows with the root of the size of a frame.
  return distance / size**0.5


def loss(
  student: Velocity,
  target: Velocity,
  x0: jax.Array,
  key: jax.Array,
  config: ConsistencyConfig,
  teacher: Velocity | None = None,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Difference of clean predictions across one step of the grid.

  With forcing all callables see `[clean past | noisy]`, 2 F frames, and must
  mask accordingly.

  Args:
    student: `(x, t [B, F]) -> velocity`, with gradient.
    target: the network the student should agree with at the less noisy end:
      an average of the student, or the student itself (improved
      consistency). No gradient is taken through it.
    x0: clean latents `[B, F, H, W, C]`.
    key: randomness of levels and noise.
    config: settings.
    teacher: velocity with its guidance, for the step between the two ends;
      None takes the true one, noise - x0 (consistency training).
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss and metrics: unweighted errors of the less and the more
    noisy frames.
  """
  level_key, noise_key = jax.random.split(key)
  batch, frames = x0.shape[:2]
  levels = sample_levels(level_key, config, batch, frames)
  noise = jax.random.normal(noise_key, x0.shape)
  t, next_t = grid(config)[levels], grid(config)[levels + 1]
  sigma, next_sigma = flow.sigma_at(t), flow.sigma_at(next_t)

  def run(model, x, t):
    if config.forcing == 'none':
      return model(x, t)
    both = jnp.concatenate([x0, x], 1)
    return model(both, jnp.concatenate([jnp.zeros_like(t), t], 1))[:, frames:]

  x = flow.add_noise(x0, noise, sigma)
  step = flow.training_target(x0, noise)
  if teacher is not None:
    step = run(teacher, x, t)
  next_x = jax.lax.stop_gradient(flow.euler_step(x, step, sigma, next_sigma))
  wanted = flow.to_x0(next_x, run(target, next_x, next_t), next_sigma)
  predicted = flow.to_x0(x, run(student, x, t), sigma)
  errors = frame_errors(predicted, jax.lax.stop_gradient(wanted), config)
  weighted = errors
  if config.weighting == 'step':
    weighted = errors / (sigma - next_sigma)
  counts = jnp.ones_like(t, bool) if mask is None else mask
  metrics = {
    'error_low': masked_mean(errors, counts & (t <= 500)),
    'error_high': masked_mean(errors, counts & (t > 500)),
  }
  return masked_mean(weighted, counts), metrics
