"""What one optimiser step does: a pure function of state and batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvid.errors import UserError
from jaxvid.training import optimizer
from jaxvid.training import state as states
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.state import Params, TrainState

Batch = Mapping[str, Any]
Metrics = Mapping[str, jax.Array]
# (parameters, batch, key) -> (mean over the batch, dict of scalars).
Loss = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
# (state, frozen networks, batch, key of this step) -> (state, metrics).
Update = Callable[
  [TrainState, Any, Batch, jax.Array], tuple[TrainState, Metrics]
]


@dataclasses.dataclass(frozen=True)
class Method:
  """How parameters learn: one loss, or several networks in turn.

  Attributes:
    create: parameters -> the state of a fresh run.
    update: one step, pure; its metrics hold at least 'loss' and 'grad_norm',
      which must stay finite.
  """

  create: Callable[[Params], TrainState]
  update: Update


def single(
  loss: Loss,
  config: OptimizerConfig,
  steps: int,
  microbatches: int = 1,
  ema_decay: float = 0.999,
) -> Method:
  """One loss, one optimiser, averaged weights."""
  tx = optimizer.create(config, steps)
  rate = optimizer.schedule(config, steps)
  gradient = jax.value_and_grad(loss, has_aux=True)

  def update(
    state: TrainState, frozen: Any, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    del frozen
    (value, metrics), grads = accumulate(
      gradient, state.params, batch, key, microbatches
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      **metrics,
      'loss': value,
      'grad_norm': optax.tree.norm(grads),
      'learning_rate': rate(state.step),
    }
    state = TrainState(
      step=state.step + 1,
      params=params,
      ema=states.update_ema(state.ema, params, state.step, ema_decay),
      opt_state=opt_state,
    )
    return state, metrics

  return Method(functools.partial(states.create, tx=tx), update)


def accumulate(gradient, params, batch, key, parts: int):
  """Mean loss, metrics and gradients over `parts` equal parts of a batch."""
  if parts == 1:
    return gradient(params, batch, key)

  def split(leaf):
    if leaf.shape[0] % parts:
      raise UserError(
        f'microbatches={parts} does not divide the batch of {leaf.shape[0]}'
      )
    # Strided, so that each part stays spread over the devices.
    rest = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
    return jnp.swapaxes(rest, 0, 1)

  def body(total, part):
    index, piece = part
    out = gradient(params, piece, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, out), None

  pieces = jax.tree.map(split, batch)
  first = jax.tree.map(lambda leaf: leaf[0], pieces)
  shapes = jax.eval_shape(gradient, params, first, key)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(body, zeros, (jnp.arange(parts), pieces))
  return jax.tree.map(lambda leaf: leaf / parts, total)
