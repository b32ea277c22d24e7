"""AdamW, Muon or RMSProp with warm-up, a schedule, clipping, a decay mask."""

import dataclasses
import functools
import re
from typing import Any

import jax
import optax
import optax.contrib

from jaxvid.errors import UserError, check_regex

KINDS = ('adamw', 'muon', 'rmsprop')
SCHEDULES = ('cosine', 'constant', 'linear', 'step')
# Leaves that scale or shift: pulling them to zero would change what a layer
# is, not regularise it. Named, because a stacked layer adds an axis to them.
NO_DECAY = ('bias', 'scale', 'gamma', 'modulation')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of the optimiser.

  Attributes:
    kind: 'adamw', or 'muon' for the matrices inside transformer blocks and
      AdamW for all else (Jordan 2024). Muon's steps are scaled to the size
      of AdamW's, so one learning rate serves both. 'rmsprop' (APT, AAPT) has
      no first moment and corrects no bias: its first steps are larger.
    learning_rate: peak learning rate.
    schedule: what follows the warm-up: 'cosine', 'linear', 'constant', or
      'step', which falls to the last rate half-way.
    warmup_steps: linear warm-up from 0.
    final_fraction: last learning rate as a part of the peak (not used by
      'constant').
    beta1: decay of the first moment.
    beta2: decay of the second moment (alpha of RMSProp).
    eps: added to the root of the second moment.
    weight_decay: decoupled weight decay; norms, biases and modulations are
      spared.
    clip_norm: largest global gradient norm; 0 turns clipping off.
    frozen: regular expression; parameters whose path (`dit/head/bias`)
      contains a match stay as they are and need no optimiser state. '' =
      none.
  """

  kind: str = 'adamw'
  learning_rate: float = 1e-3
  schedule: str = 'cosine'
  warmup_steps: int = 100
  final_fraction: float = 0.05
  beta1: float = 0.9
  beta2: float = 0.99
  eps: float = 1e-8
  weight_decay: float = 0.01
  clip_norm: float = 1.0
  frozen: str = ''

  def __post_init__(self):
    if self.kind not in KINDS:
      raise UserError(
        f"unknown optimizer '{self.kind}'; use one of {', '.join(KINDS)}"
      )
    if self.schedule not in SCHEDULES:
      raise UserError(
        f"unknown schedule '{self.schedule}'; use one of {', '.join(SCHEDULES)}"
      )
    if self.learning_rate <= 0:
      raise UserError(f'learning_rate must be > 0, not {self.learning_rate}')
    check_regex('frozen', self.frozen)
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
  elif config.schedule == 'step':
    main = optax.piecewise_constant_schedule(
      peak, {rest // 2: config.final_fraction}
    )
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
  rate = schedule(config, steps)
  if config.kind == 'muon':
    parts.append(_muon(config, rate))
  elif config.kind == 'rmsprop':
    parts += [
      optax.scale_by_rms(config.beta2, config.eps, eps_in_sqrt=False),
      optax.add_decayed_weights(config.weight_decay, decay_mask),
      optax.scale_by_learning_rate(rate),
    ]
  else:
    parts.append(
      optax.adamw(
        rate,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
      )
    )
  tx = optax.chain(*parts)
  if not config.frozen:
    return tx
  labels = functools.partial(_labels, re.compile(config.frozen))
  return optax.partition({'train': tx, 'freeze': optax.set_to_zero()}, labels)


def _labels(frozen: re.Pattern, params: Any) -> Any:
  def label(path, _):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return 'freeze' if frozen.search(name) else 'train'

  return jax.tree.map_with_path(label, params)


def matrices(params: Any) -> Any:
  """Which leaves Muon serves: the kernels inside transformer blocks.

  A leaf of a scanned stack has the layers in front; each is a matrix of its
  own. Embeddings and the last projection belong to AdamW.
  """

  def spec(path, leaf):
    names = [str(getattr(key, 'key', key)) for key in path]
    inside = any(name.split('_')[0] == 'blocks' for name in names[:-1])
    if inside and names[-1] == 'kernel' and leaf.ndim in (2, 3):
      return optax.contrib.MuonDimensionNumbers(-2, -1)
    return None

  return jax.tree.map_with_path(spec, params)


def _muon(
  config: OptimizerConfig, rate: optax.Schedule
) -> optax.GradientTransformation:
  return optax.contrib.muon(
    rate,
    adam_b1=config.beta1,
    adam_b2=config.beta2,
    weight_decay=config.weight_decay,
    muon_weight_dimension_numbers=matrices,
    # The root mean square of an AdamW update, about (Liu et al. 2025).
    consistent_rms=0.2,
  )
