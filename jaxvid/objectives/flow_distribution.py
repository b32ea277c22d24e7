"""Flow distribution matching: DMD of motion, with two regressions.

DiagDistill section 3.3, eq. 12:

  4 L_DMD + L_reg + gamma (4 L_flowDMD + L_flowreg)

L_flowDMD is DMD on differences of neighbouring latent frames: the flow scores
of eq. 9 and 10 are the temporal differences of the two denoisers' clean
predictions at the same noisy clip, as upstream reads them. L_flowreg (eq. 11)
compares motion features (`models/motion.py`) of the generated clip and of a
target made from the same noise; L_reg compares the latents themselves.

Against upstream: its first release squared a motion gradient that carried no
derivative, so that term taught nothing. Here the gradient with respect to the
generated clip is true, masks hold for every term, and L_flowDMD has the factor
1/2 of L_DMD. `release` is the later upstream form.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.errors import UserError
from jaxvid.models import motion
from jaxvid.models.layers import Params
from jaxvid.models.motion import MotionConfig
from jaxvid.objectives import dmd
from jaxvid.objectives.masks import masked_mean, pair_mask


@dataclasses.dataclass(frozen=True)
class FlowDistributionConfig:
  """Weights and forms of the terms of eq. 12.

  Attributes:
    spatial: lambda_spatial (*paper* 4).
    regression: weight of L_reg (*paper* 1; *released config* 0). The paper
      calls it necessary: without it training collapses.
    gamma: weight of both motion terms (*paper* 1).
    flow: lambda_flow (*paper* 4).
    flow_regression: weight of L_flowreg inside the bracket (*paper* 1).
    distance: of L_reg: 'mse', 'charbonnier' or 'cauchy'.
    epsilon: of 'charbonnier' (*released code*).
    c: of 'cauchy' (*released code*).
    frame_weight: 'none', or 'upstream' which makes later frames count more.
    flow_factor: factor in L_flowDMD; 0.5 as in L_DMD, upstream 1.
    normalise: divide gradients by the distance from the teacher, per clip.
    motion: the features of L_flowreg.
    collapse: weight of the guard of a learned head (*ours*); its gradient
      reaches the head alone.
  """

  spatial: float = 4.0
  regression: float = 1.0
  gamma: float = 1.0
  flow: float = 4.0
  flow_regression: float = 1.0
  distance: Literal['mse', 'charbonnier', 'cauchy'] = 'mse'
  epsilon: float = 1e-3
  c: float = 1e-2
  frame_weight: Literal['none', 'upstream'] = 'none'
  flow_factor: float = 0.5
  normalise: bool = True
  motion: MotionConfig = dataclasses.field(default_factory=MotionConfig)
  collapse: float = 1.0

  def __post_init__(self):
    for name in ('spatial', 'regression', 'gamma', 'flow', 'flow_regression'):
      if getattr(self, name) < 0:
        raise UserError(f'{name} must be >= 0, not {getattr(self, name)}')
    for name in ('epsilon', 'c'):
      if getattr(self, name) <= 0:
        raise UserError(f'{name} must be > 0, not {getattr(self, name)}')


def release() -> FlowDistributionConfig:
  """The released configs: no L_reg, weighted frames, an identity head.

  Upstream also leaves masks out of L_flowDMD, and neither trains nor
  averages its motion heads; those are defects and have no option.
  """
  return FlowDistributionConfig(
    regression=0.0,
    frame_weight='upstream',
    flow_factor=1.0,
    motion=motion.release(),
    collapse=0.0,
  )


def differences(x: jax.Array) -> jax.Array:
  """`[B, F, ...]` -> differences of neighbouring frames `[B, F - 1, ...]`."""
  return x[:, 1:] - x[:, :-1]


def flow_gradient(
  x: jax.Array, fake_x0: jax.Array, real_x0: jax.Array, normalise: bool = True
) -> jax.Array:
  """DMD's gradient of temporal differences, `[B, F - 1, H, W, C]`.

  Args:
    x: generated latents `[B, F, H, W, C]`.
    fake_x0: the critic's prediction, like `x`.
    real_x0: the teacher's prediction, like `x`.
    normalise: divide by mean |dx - d real_x0| of each clip.
  """
  return dmd.gradient(
    differences(x), differences(fake_x0), differences(real_x0), normalise
  )


def upstream_frame_weight(x: jax.Array, grad: jax.Array) -> jax.Array:
  """The release's weight of each pair of frames `[B, F - 1]`.

  0.7 (1 + share of the error up to f) + 0.3 1.2^f / mean 1.2^f, where the
  error of pair f is the mean square between its gradient and frame f + 1:
  a direction against a latent, as upstream has it.

  Args:
    x: generated latents `[B, F, H, W, C]`.
    grad: from `flow_gradient`.
  """
  error = jnp.mean(jnp.square(grad - x[:, 1:]), (2, 3, 4))
  total = jnp.cumsum(error, 1)
  growth = 1.2 ** jnp.arange(error.shape[1])
  share = total / jnp.maximum(total[:, -1:], 1e-6)
  weight = 0.7 * (1 + share) + 0.3 * growth / jnp.mean(growth)
  return jax.lax.stop_gradient(weight)


def flow_dmd(
  x: jax.Array,
  grad: jax.Array,
  config: FlowDistributionConfig,
  mask: jax.Array | None = None,
) -> jax.Array:
  """L_flowDMD: mean w (dx - sg(dx - grad))^2, times `flow_factor`.

  Args:
    x: generated latents `[B, F, H, W, C]`, with gradient.
    grad: from `flow_gradient`; treated as constant.
    config: settings.
    mask: frames that count `[B, F]`; a pair counts if both do.
  """
  dx, stop = differences(x), jax.lax.stop_gradient
  error = jnp.square(dx - stop(dx) + stop(grad))
  if config.frame_weight == 'upstream' and dx.shape[1]:
    weight = upstream_frame_weight(stop(x), stop(grad))
    error = error * weight[..., None, None, None]
  return config.flow_factor * masked_mean(error, pair_mask(mask))


def flow_regression(
  x: jax.Array,
  target: jax.Array,
  student: Params,
  averaged: Params,
  config: MotionConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """L_flowreg: mean (F_student(x) - sg F_averaged(target))^2 (eq. 11).

  Args:
    x: generated latents `[B, F, H, W, C]`, with gradient.
    target: latents to move like, like `x`; treated as constant.
    student: parameters of the trained head, `{}` if nothing is learned.
    averaged: parameters of the head that follows it.
    config: the features.
    mask: frames that count `[B, F]`.

  Returns:
    The scalar loss and metrics: `motion_std`, the mean deviation of the
    student's features on target clips (0 = collapsed), and
    `motion_collapse`, see `motion.collapse_penalty`; its gradient reaches
    `student` alone.
  """
  target = jax.lax.stop_gradient(target)
  mean, std = motion.statistics(config, target)
  scale = (mean, std) if config.normalise else None
  wanted = motion.apply(config, averaged, target, scale)
  error = motion.apply(config, student, x, scale) - jax.lax.stop_gradient(
    wanted
  )
  if config.pairs:
    mask = pair_mask(mask)
  own = motion.apply(config, student, target, scale)
  floor = 1.0 if config.normalise else jnp.maximum(jnp.mean(std), 1e-6)
  metrics = {
    'motion_std': jnp.mean(motion.feature_std(own)),
    'motion_collapse': motion.collapse_penalty(own, floor),
  }
  return masked_mean(jnp.square(error), mask), metrics


def regression(
  x: jax.Array,
  target: jax.Array,
  config: FlowDistributionConfig,
  mask: jax.Array | None = None,
) -> jax.Array:
  """L_reg: the distance of generated clips from their targets (eq. 3).

  Args:
    x: generated latents `[B, F, H, W, C]`, with gradient.
    target: like `x`; treated as constant.
    config: settings.
    mask: frames that count `[B, F]`.
  """
  squared = jnp.square(x - jax.lax.stop_gradient(target))
  if config.distance == 'charbonnier':
    squared = jnp.sqrt(squared + config.epsilon**2)
  elif config.distance == 'cauchy':
    squared = jnp.log1p(squared / config.c**2)
  return masked_mean(squared, mask)


def total(
  x: jax.Array,
  fake_x0: jax.Array,
  real_x0: jax.Array,
  target: jax.Array,
  student: Params,
  averaged: Params,
  config: FlowDistributionConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The whole objective of the generator and its motion head (eq. 12).

  Args:
    x: generated latents `[B, F, H, W, C]`, with gradient.
    fake_x0: the critic's prediction, see `dmd.predictions`.
    real_x0: the teacher's prediction.
    target: what both regressions aim at, from the same noise: the frozen
      multi-step causal generator, or the end point of the teacher's ODE.
      The release's default without one is `x - dmd.gradient(...)`.
    student: parameters of the trained motion head; `{}` if none.
    averaged: parameters of the head that follows it.
    config: settings.
    mask: frames that count `[B, F]`; None = all.

  Returns:
    The scalar loss and metrics, every term unweighted.
  """
  grad = dmd.gradient(x, fake_x0, real_x0, config.normalise)
  flow_grad = flow_gradient(x, fake_x0, real_x0, config.normalise)
  spatial = dmd.surrogate(x, grad, mask)
  flow = flow_dmd(x, flow_grad, config, mask)
  reg = regression(x, target, config, mask)
  flow_reg, metrics = flow_regression(
    x, target, student, averaged, config.motion, mask
  )
  temporal = config.flow * flow + config.flow_regression * flow_reg
  loss = config.spatial * spatial + config.regression * reg
  loss = loss + config.gamma * temporal
  if student:
    loss = loss + config.collapse * metrics['motion_collapse']
  metrics = {
    'dmd': spatial,
    'regression': reg,
    'flow_dmd': flow,
    'flow_regression': flow_reg,
    'dmd_gradient': jnp.mean(jnp.abs(grad)),
    **metrics,
  }
  return loss, metrics
