"""AdamW with warm-up, a schedule, clipping and a decay mask."""

import dataclasses
from typing import Any

import jax
import optax

from jaxvid.errors import UserError

SCHEDULES = ('cosine', 'constant', 'linear')
# Leaves that scale or shift: pulling them to zero would change what a layer
# is, not regularise it. Named, because a stacked layer adds an axis to them.
NO_DECAY = ('bias', 'scale', 'gamma', 'modulation')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of the optimiser.

  Attributes:
    learning_rate: peak learning rate.
    schedule: what follows the warm-up: 'cosine', 'linear' or 'constant'.
    warmup_steps: linear warm-up from 0.
    final_fraction: last learning rate as a part of the peak (not used by
      'constant').
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: decoupled weight decay; norms, biases and modulations are
      spared.
    clip_norm: largest global gradient norm; 0 turns clipping off.
  """

  learning_rate: float = 1e-3
  schedule: str = 'cosine'
  warmup_steps: int = 100
  final_fraction: float = 0.05
  beta1: float = 0.9
  beta2: float = 0.99
  eps: float = 1e-8
  weight_decay: float = 0.01
  clip_norm: float = 1.0

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise UserError(
        f"unknown schedule '{self.schedule}'; use one of {', '.join(SCHEDULES)}"
      )
    if self.learning_rate <= 0:
      raise UserError(f'learning_rate must be > 0, not {self.learning_rate}')
    if self.warmup_steps < 0:
      raise UserError(f'warmup_steps must be >= 0, not {self.warmup_steps}')


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Learning rate as a function of the number of finished steps."""
  peak, warmup = config.learning_rate, config.warmup_steps
  rest = max(1, steps - warmup)
  if config.schedule == 'cosine':
    main = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
  elif config.schedule == 'linear':
    main = optax.linear_schedule(peak, peak * config.final_fraction, rest)
  else:
    main = optax.constant_schedule(peak)
  if not warmup:
    return main
  # Not from 0: the first step would be lost.
  rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([rise, main], [warmup])


def decay_mask(params: Any) -> Any:
  """True for the leaves that weight decay may touch."""

  def decays(path, leaf):
    name = str(getattr(path[-1], 'key', path[-1])) if path else ''
    return leaf.ndim >= 2 and name not in NO_DECAY

  return jax.tree.map_with_path(decays, params)


def create(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
  """The optimiser of a run of `steps` steps."""
  parts = []
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  parts.append(
    optax.adamw(
      schedule(config, steps),
      b1=config.beta1,
      b2=config.beta2,
      eps=config.eps,
      weight_decay=config.weight_decay,
      mask=decay_mask,
    )
  )
  return optax.chain(*parts)
