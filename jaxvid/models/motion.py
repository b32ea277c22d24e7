"""Motion features F(.) of latent clips, in the seven forms of DiagDistill.

DiagDistill appendix G, Table 9: raw latents, differences, 4-D correlation, low
and high spatial frequencies, a learned MLP, a learned convolution on
differences. No external optical flow. All are functions of `[B, F, H, W, C]`
latents that return `[B, F', H', W', K]`, F' = F - 1 where neighbours are
compared (`MotionConfig.pairs`).

The learned forms have two copies: a *student* trained with the generator and a
*target* that follows it by `update_target`. Two such copies can agree by both
becoming constant; `collapse_penalty` keeps the student from that and
`feature_std` shows it.

Normalisation: latents (or differences) are standardised per channel by the
statistics of the *target* clips (`statistics`), for both sides alike. Each
side by its own would erase what is to be compared: how much things move.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvid.errors import UserError
from jaxvid.models.layers import LayerNorm, Params
from jaxvid.models.vae_layers import Conv2D

Kind = Literal['raw', 'difference', 'correlation', 'low', 'high', 'mlp', 'conv']
Statistics = tuple[jax.Array, jax.Array]  # mean and standard deviation [C]


@dataclasses.dataclass(frozen=True)
class MotionConfig:
  """Which features, and the sizes of the learned ones.

  Attributes:
    kind: the form; Table 9 in its order. Ours by default the paper's best.
    normalise: standardise by the target clips (*paper*, appendix G).
    cutoff: share of each spatial frequency axis that is 'low' (*ours*).
    pool: side of the squares averaged before the correlation (*ours*); its
      size is (H W)^2 per pair, 1 keeps all positions as printed.
    hidden: width of the learned head (*released code* 64).
    kernel: side of the first convolution of 'conv' (*ours* 3: the paper's
      "local motion patterns"; the release has 1, which sees none).
    groups: groups of that layer's norm (*released code* 32).
    residual: add the head's input to its output. Norms inside the head see
      no amplitude; the residual path carries it.
    compat: the head of the release, see `release`.
  """

  kind: Kind = 'conv'
  normalise: bool = True
  cutoff: float = 0.25
  pool: int = 1
  hidden: int = 64
  kernel: int = 3
  groups: int = 32
  residual: bool = True
  compat: bool = False

  def __post_init__(self):
    if not 0 < self.cutoff < 1:
      raise UserError(f'cutoff must be in (0, 1), not {self.cutoff}')
    for name in ('pool', 'hidden', 'kernel', 'groups'):
      if getattr(self, name) < 1:
        raise UserError(f'{name} must be >= 1, not {getattr(self, name)}')
    if self.kind == 'conv' and self.hidden % self.groups:
      raise UserError(
        f'hidden={self.hidden} must be a multiple of groups={self.groups}'
      )
    if self.compat and self.kind != 'conv':
      raise UserError(f"compat is a form of kind 'conv', not of {self.kind!r}")

  @property
  def pairs(self) -> bool:
    """Whether a feature compares two neighbouring latent frames."""
    return self.kind in ('difference', 'correlation', 'conv')

  @property
  def learned(self) -> bool:
    """Whether there are parameters."""
    return self.kind in ('mlp', 'conv')


def release() -> MotionConfig:
  """The head of the released code: identity at the start.

  SiLU, 1x1 convolution, group norm, SiLU, 1x1 convolution that starts at 0,
  residual; on plain differences (MCM's "SpatialHead").
  """
  return MotionConfig(normalise=False, kernel=1, compat=True)


class Head(nn.Module):
  """Two layers on every frame: `[B, F, H, W, C]` -> the same shape."""

  config: MotionConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    local = config.kind == 'conv'
    h = nn.silu(x) if config.compat else x
    size = config.kernel if local else 1
    h = Conv2D(config.hidden, size, name='conv_0')(h)
    if local:
      frames = h.reshape(-1, *h.shape[2:])
      norm = nn.GroupNorm(
        config.groups, epsilon=1e-5, use_fast_variance=False, name='norm'
      )
      h = norm(frames).reshape(h.shape)
    else:
      h = LayerNorm(1e-5, affine=True, name='norm')(h)
    h = Conv2D(x.shape[-1], 1, name='conv_1')(nn.silu(h))
    return x + h if config.residual else h


def init(config: MotionConfig, key: jax.Array, channels: int) -> dict[str, Any]:
  """Parameters of the learned head; `{}` where nothing is learned."""
  if not config.learned:
    return {}
  x = jnp.zeros((1, 1, 1, 1, channels))
  params = Head(config).init(key, x)['params']
  if config.compat:
    params['conv_1'] = jax.tree.map(jnp.zeros_like, params['conv_1'])
  return params


def update_target(target: Params, student: Params, decay: float = 0.95):
  """theta- <- decay theta- + (1 - decay) theta (appendix G).

  The paper gives no decay; 0.95 is the release's.
  """
  return jax.tree.map(
    lambda old, new: decay * old + (1 - decay) * new, target, student
  )


def statistics(config: MotionConfig, x: jax.Array) -> Statistics:
  """Mean and deviation of each channel of what the features are taken from.

  Args:
    config: settings.
    x: target latents `[B, F, H, W, C]`.
  """
  x = _source(config, x)
  return jnp.mean(x, (0, 1, 2, 3)), jnp.std(x, (0, 1, 2, 3))


def apply(
  config: MotionConfig,
  params: Params,
  x: jax.Array,
  scale: Statistics | None = None,
) -> jax.Array:
  """Features of clips.

  'low' and 'high' are the coefficients of an orthonormal DCT-II over height
  and width of every frame: 'low' those below `cutoff` on both axes (the mean
  is always low), 'high' the others; the rest is 0. The paper names neither
  axes nor cut-off, so both are ours. 'correlation' holds at each position of
  a frame its dot products with all positions of the next, over sqrt(C).

  Args:
    config: settings.
    params: from `init`.
    x: latents `[B, F, H, W, C]`.
    scale: from `statistics` of the target clips; None leaves `x` as it is.

  Returns:
    `[B, F', H', W', K]`, F' = F - 1 if `config.pairs` else F.
  """
  x = _source(config, x.astype(jnp.float32))
  if scale is not None:
    mean, std = scale
    # Where the target does not move at all, do not magnify what does.
    x = (x - mean) / jnp.maximum(std, 1e-2)
  if config.kind == 'correlation':
    return _correlation(x, config.pool)
  if config.kind in ('low', 'high'):
    return _band(x, config.cutoff, config.kind == 'low')
  return Head(config).apply({'params': params}, x) if config.learned else x


def feature_std(features: jax.Array) -> jax.Array:
  """Deviation of each channel over batch, frames and positions, `[K]`.

  Finite gradient where a channel is constant (VICReg).
  """
  return jnp.sqrt(jnp.var(features, (0, 1, 2, 3)) + 1e-6)


def collapse_penalty(features: jax.Array, floor: float = 1.0) -> jax.Array:
  """Mean of max(0, 1 - deviation / floor) over channels: 1 when constant.

  The hinge of VICReg (Bardes et al. 2022). Standardised inputs have
  deviation 1, so with floor 1 a head may turn and mix motion, not shrink it.

  Args:
    features: of the student head on *target* clips, so that the penalty
      reaches the head and never the generator.
    floor: deviation below which a channel counts as shrunk.
  """
  return jnp.mean(jax.nn.relu(1 - feature_std(features) / floor))


def _source(config, x):
  if config.kind in ('difference', 'conv'):
    return x[:, 1:] - x[:, :-1]
  return x


def _correlation(x, pool):
  b, f, h, w, c = x.shape
  if h % pool or w % pool:
    raise UserError(f'pool={pool} must divide latent height {h} and width {w}')
  h, w = h // pool, w // pool
  x = jnp.mean(x.reshape(b, f, h, pool, w, pool, c), (3, 5))
  x = x.reshape(b, f, h * w, c)
  volume = jnp.einsum('bfpc,bfqc->bfpq', x[:, :-1], x[:, 1:]) / c**0.5
  return volume.reshape(b, f - 1, h, w, h * w)


def _dct(size: int) -> np.ndarray:
  """Orthonormal DCT-II `[frequency, position]`."""
  frequency, position = np.arange(size)[:, None], np.arange(size)
  matrix = np.cos(np.pi * frequency * (position + 0.5) / size)
  matrix *= np.sqrt(2 / size)
  matrix[0] /= np.sqrt(2)
  return matrix.astype(np.float32)


def _band(x, cutoff, low):
  h, w = x.shape[2:4]
  y = jnp.einsum('uh,vw,bfhwc->bfuvc', _dct(h), _dct(w), x)
  rows, columns = np.arange(h) / h < cutoff, np.arange(w) / w < cutoff
  inside = rows[:, None] & columns
  return y * (inside if low else ~inside)[..., None].astype(np.float32)
