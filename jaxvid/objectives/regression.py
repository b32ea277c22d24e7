"""ODE regression: the first step from many ticks to few.

A teacher's sampling trajectories are stored at a few noise levels; the student
learns to jump from any of them to the clean end. Sources: CausVid; Self-
Forcing `model/ode_regression.py` (every chunk at a level of its own, under the
block-causal mask); Causal Forcing (arXiv 2602.02214) for the causal form:
trajectories of a bidirectional teacher depend on frames a causal student never
sees, those of a causal many-tick model do not.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives.masks import masked_mean

# (latents [B, F, H, W, C], time steps [B, F]) -> x0 of the same shape.
Predictor = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class RegressionConfig:
  """Which levels are drawn and what of the past is shown.

  Attributes:
    times: time steps of the stored trajectory, falling. A last 0 draws the
      clean end too: such chunks are shown clean and their error does not
      count (CausVid's list ends so).
    chunk: latent frames per chunk.
    form: 'parallel' shows all chunks at their drawn levels; 'causal' shows
      each chunk the clean ends of the chunks before it, which is what it
      was generated from by a causal model.
    context_t: level of the past in the causal form; keep it at inference.
  """

  times: tuple[float, ...] = (1000.0, 937.5, 2500 / 3, 625.0)
  chunk: int = 3
  form: Literal['parallel', 'causal'] = 'parallel'
  context_t: float = 0.0

  def __post_init__(self):
    falling = all(a > b for a, b in itertools.pairwise(self.times))
    if not self.times or not falling or self.times[0] > 1000:
      raise UserError(f'times={self.times} must fall, from at most 1000')
    if self.times[-1] < 0 or self.times[0] <= 0:
      raise UserError(f'times={self.times} must be > 0; only a last one 0')
    if self.chunk < 1:
      raise UserError(f'chunk must be >= 1, not {self.chunk}')
    if not 0 <= self.context_t < 1000:
      raise UserError(f'context_t must be in [0, 1000), not {self.context_t}')

  @property
  def stored(self) -> int:
    """Entries K + 1 of a trajectory: its noisy levels and the clean end."""
    return sum(t > 0 for t in self.times) + 1


def sample_levels(
  key: jax.Array, config: RegressionConfig, batch: int, frames: int
) -> jax.Array:
  """Indices into `config.times`, `[B, F]`, equal within each chunk."""
  shape = (batch, -(-frames // config.chunk))
  levels = jax.random.randint(key, shape, 0, len(config.times))
  return jnp.repeat(levels, config.chunk, axis=1)[:, :frames]


def at_levels(trajectory: jax.Array, levels: jax.Array) -> jax.Array:
  """Frames of `[B, K + 1, F, H, W, C]` at the levels `[B, F]` of each."""
  index = levels[:, None, :, None, None, None]
  return jnp.take_along_axis(trajectory, index, axis=1)[:, 0]


def loss(
  predict: Predictor,
  trajectory: jax.Array,
  key: jax.Array,
  config: RegressionConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean squared error of the student's jumps to the clean end.

  Args:
    predict: the student: `(x, t [B, F]) -> x0`, block-causal. In the causal
      form it is called with `[past | noisy]`, 2 F frames, and must mask as
      in teacher forcing.
    trajectory: `[B, K + 1, F, H, W, C]` at the levels of `config.times`,
      the clean end last.
    key: randomness of levels, and of the past's noise.
    config: settings.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss and its part at each level.

  Raises:
    UserError: the trajectory has another number of levels.
  """
  batch, stored, frames = trajectory.shape[:3]
  if stored != config.stored:
    raise UserError(
      f'the trajectories hold {stored} levels, times={config.times} '
      f'needs {config.stored}'
    )
  level_key, noise_key = jax.random.split(key)
  levels = sample_levels(level_key, config, batch, frames)
  t = jnp.asarray(config.times, jnp.float32)[levels]
  clean, x = trajectory[:, -1], at_levels(trajectory, levels)
  if config.form == 'causal':
    past, past_t = clean, jnp.full_like(t, config.context_t)
    if config.context_t:
      noise = jax.random.normal(noise_key, clean.shape)
      past = flow.add_noise(clean, noise, flow.sigma_at(past_t))
    both = jnp.concatenate([past, x], 1)
    predicted = predict(both, jnp.concatenate([past_t, t], 1))[:, frames:]
  else:
    predicted = predict(x, t)
  error = jnp.square(predicted - clean)
  counts = t != 0 if mask is None else mask & (t != 0)
  metrics = {
    f'error_{value:.0f}': masked_mean(error, counts & (levels == i))
    for i, value in enumerate(config.times)
    if value
  }
  return masked_mean(error, counts), metrics
