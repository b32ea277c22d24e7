"""Noise of chunks: what each starts from, and how much of it training shows.

At inference neighbouring chunks may share their noise, shuffled where they
meet; in training later chunks of a clip may be noisier than earlier ones.
Source: BlockVid, section 3.4 and appendix A.5; FreeNoise (shuffling).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.errors import UserError

# Chunks draw from the stream's key folded with 0, 1, ...; ticks from the
# chunk's. These are further off than either goes.
_BASE = 2**30
_PREFIX, _SUFFIX = 2**30, 2**30 + 1
CURVES = ('naive', 'linear', 'cosine', 'sigmoid')


@dataclasses.dataclass(frozen=True)
class StartNoise:
  """The noise that the chunks of a stream begin from.

  Attributes:
    shuffle: latent frames s permuted at either side of every boundary between
      chunks, at most a chunk; 0 = none (*paper*: 4).
    shared: all chunks begin from the same noise, frame by frame, which the
      shuffling then tells apart ("inherits per-frame base noises from a
      fixed random seed"); False draws each chunk's afresh, where shuffling
      alone changes nothing but which sample is drawn.
  """

  shuffle: int = 0
  shared: bool = False

  def __post_init__(self):
    if self.shuffle < 0:
      raise UserError(f'shuffle must be >= 0, not {self.shuffle}')


FRESH = StartNoise()


def start_noise(
  config: StartNoise,
  key: jax.Array,
  chunk: jax.Array,
  own: tuple[jax.Array, jax.Array],
  shape: tuple[int, ...],
) -> jax.Array:
  """Standard normal noise of a chunk, `shape` = `[B, F, H, W, C]`.

  Args:
    config: settings.
    key: of the stream.
    chunk: its index, int32.
    own: the chunk's keys: of its first noise, and of its ticks.
    shape: of the noise.
  """
  start, later = own
  if config.shared:
    start = jax.random.fold_in(key, _BASE)
  noise = jax.random.normal(start, shape)
  width = min(config.shuffle, shape[1])
  if width < 2:
    return noise
  ends = noise[:, shape[1] - width :]
  order = jax.random.permutation(jax.random.fold_in(later, _SUFFIX), width)
  noise = jnp.concatenate([noise[:, : shape[1] - width], ends[:, order]], 1)
  # Before the first chunk there is no boundary.
  order = jax.random.permutation(jax.random.fold_in(later, _PREFIX), width)
  order = jnp.where(chunk > 0, order, jnp.arange(width))
  return jnp.concatenate([noise[:, :width][:, order], noise[:, width:]], 1)


@dataclasses.dataclass(frozen=True)
class ProgressiveNoise:
  """Noise levels of a clip's chunks in training, rising from first to last.

  A chunk's level is the one drawn for the clip times the curve's height at
  the chunk, so the curve says how noisy each chunk is at most. The paper says
  neither how its levels meet the random time steps of training nor eps_min
  nor alpha: these are ours.

  Attributes:
    curve: 'cosine' (*paper*), 'linear', 'sigmoid', or 'naive', one level for
      all chunks (tables 4 and A.5).
    low: eps_min, above 0.
    high: eps_max; 1 is the end of the noise schedule (*paper*: its end).
    alpha: steepness of the sigmoid.
    share: of the clips that have such levels; in the others every chunk has
      its own, so that the first one, too, learns to begin from noise.
  """

  curve: Literal['naive', 'linear', 'cosine', 'sigmoid'] = 'cosine'
  low: float = 0.2
  high: float = 1.0
  alpha: float = 10.0
  share: float = 0.5

  def __post_init__(self):
    if self.curve not in CURVES:
      raise UserError(
        f'curve must be one of {", ".join(CURVES)}, not {self.curve!r}'
      )
    if not 0 < self.low <= self.high <= 1:
      raise UserError(
        f'noise levels must satisfy 0 < low <= high <= 1, not {self.low:g} '
        f'and {self.high:g}'
      )
    if self.alpha <= 0:
      raise UserError(f'alpha must be > 0, not {self.alpha:g}')
    if not 0 <= self.share <= 1:
      raise UserError(f'share must be in [0, 1], not {self.share:g}')


def curve_levels(config: ProgressiveNoise, chunks: int) -> np.ndarray:
  """eps_c of chunks c = 0 .. n - 1 (equations 8, 22 and 23), float64 `[n]`.

  The paper counts from 1 with n - 1 below, which would overshoot. 'naive' is
  `high` throughout; a clip of one chunk has `high`.
  """
  if chunks == 1 or config.curve == 'naive':
    return np.full(chunks, config.high)
  place = np.arange(chunks) / (chunks - 1)
  height = {
    'linear': place,
    'cosine': (1 - np.cos(np.pi * place)) / 2,
    'sigmoid': 1 / (1 + np.exp(-config.alpha * (place - 0.5))),
  }[config.curve]
  return config.low + (config.high - config.low) * height


def progressive(
  config: ProgressiveNoise, t: jax.Array, key: jax.Array, chunk: int
) -> jax.Array:
  """Replaces the levels of some clips by rising ones.

  Args:
    config: settings.
    t: time steps 0..1000 of every frame `[B, F]`, equal within chunks; the
      last chunk's is that of its clip.
    key: says which clips.
    chunk: latent frames per chunk.

  Returns:
    Time steps `[B, F]`.
  """
  batch, frames = t.shape
  levels = curve_levels(config, -(-frames // chunk)).astype(np.float32)
  rising = t[:, -1:] * np.repeat(levels, chunk)[:frames]
  chosen = jax.random.bernoulli(key, config.share, (batch, 1))
  return jnp.where(chosen, rising, t)
