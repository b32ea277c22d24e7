"""The state of a training run."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

Params = Any


@struct.dataclass
class TrainState:
  """Everything a run carries from step to step.

  Attributes:
    step: number of finished steps, int32 [].
    params: trainable parameters (float32 master copy).
    ema: exponential moving average of `params`, the weights to ship.
    opt_state: optimiser state.
  """

  step: jax.Array
  params: Params
  ema: Params
  opt_state: Any


def create(params: Params, tx: optax.GradientTransformation) -> TrainState:
  """A fresh state; the average is a copy, never the same buffers.

  Sharing buffers would break donation: one buffer cannot be given away
  twice.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema=jax.tree.map(jnp.copy, params),
    opt_state=tx.init(params),
  )


def update_ema(ema: Params, params: Params, step, decay: float) -> Params:
  """Moves `ema` towards `params`.

  Early on the average is shorter, `min(decay, (1 + step) / (10 + step))`, so
  that the random start is forgotten within a few dozen steps.

  Args:
    ema: average before this step.
    params: parameters after this step.
    step: number of finished steps before this one, int [].
    decay: weight of the past in the long run, in [0, 1).
  """
  step = jnp.asarray(step, jnp.float32)
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)
