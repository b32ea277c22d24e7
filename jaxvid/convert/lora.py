"""LoRA adapters as peft saves them: read, merge, or keep apart.

An adapter adds `alpha / rank * A @ B` to a matrix `[in, out]`. Our tree has
the base model's paths with `lora_A/kernel [in, rank]` and
`lora_B/kernel [rank, out]` below each adapted matrix.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.convert import rules
from jaxvid.errors import UserError
from jaxvid.storage import mapped

PREFIX = 'base_model.model.'
_KEY = re.compile(
  r'(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight$'
)


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Strength of an adapter.

  Attributes:
    rank: inner size of every pair.
    alpha: strength; the file does not hold it, and rank is the default.
  """

  rank: int
  alpha: float

  @property
  def scale(self) -> float:
    """Factor of `A @ B`."""
    return self.alpha / self.rank


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  settings: Mapping[str, Any],
  alpha: float | None = None,
) -> tuple[LoRAConfig, dict[str, Any]]:
  """Reads an adapter.

  Args:
    tensors: peft keys -> A `[rank, in]` and B `[out, rank]`.
    settings: of the file or its `adapter_config.json`, or {}.
    alpha: overrides the settings' alpha.

  Returns:
    The config and our tree.

  Raises:
    UserError: a key that is no A or B, one without the other, or different
      ranks.
  """
  if settings.get('use_rslora') or settings.get('use_dora'):
    raise UserError('rsLoRA and DoRA adapters are not supported')
  pairs: dict[str, dict[str, np.ndarray]] = {}
  for key, x in tensors.items():
    match = _KEY.match(key)
    if not match or x.ndim != 2:
      raise UserError(f'{key} is not part of a LoRA adapter')
    if match[2] in pairs.setdefault(match[1], {}):
      raise UserError(f'{key} occurs twice')
    pairs[match[1]][match[2]] = x
  ranks = set()
  flat = {}
  for base, pair in pairs.items():
    if len(pair) != 2:
      missing = 'A' if 'B' in pair else 'B'
      raise UserError(f'{base}.lora_{missing}.weight is missing')
    ranks |= {pair['A'].shape[0], pair['B'].shape[1]}
    for name, x in pair.items():
      path, x = rules.to_ours(f'{base}.lora_{name}.weight', x)
      flat[path] = x
  if len(ranks) != 1 or 0 in ranks:
    raise UserError(f'ranks differ: {sorted(ranks)}')
  rank = ranks.pop()
  if alpha is None:
    alpha = settings.get('lora_alpha', settings.get('alpha', rank))
  return LoRAConfig(rank, float(alpha)), rules.unflatten(flat)


def peft_config(
  adapter: Mapping[str, Any], config: LoRAConfig
) -> dict[str, Any]:
  """`adapter_config.json` of our tree, unrolled or stacked."""
  layers = {path.split('/lora_')[0] for path in rules.flatten(adapter)}
  names = {re.sub(r'^blocks(_\d+)?/', '', layer) for layer in layers}
  keys = [rules.key_of(f'{name}/kernel') for name in names]
  return {
    'peft_type': 'LORA',
    'base_model_name_or_path': None,
    'r': config.rank,
    'lora_alpha': config.alpha,
    'target_modules': sorted(key.removesuffix('.weight') for key in keys),
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
    'use_rslora': False,
    'use_dora': False,
  }


def merge(
  params: Mapping[str, Any], adapter: Mapping[str, Any], scale: float
) -> dict[str, Any]:
  """Adds an adapter to the weights it belongs to.

  Pure: works on numpy and jax arrays, unrolled or stacked (both trees alike),
  and is differentiable in `adapter`. The sum is formed in float32 and given
  the weight's dtype.

  Args:
    params: the model's parameters.
    adapter: tree from `from_tensors`.
    scale: `LoRAConfig.scale`.

  Raises:
    UserError: the adapter belongs to another model.
  """
  weights, extra = rules.flatten(params), rules.flatten(adapter)
  for path in [p for p in extra if p.endswith('/lora_A/kernel')]:
    base = path.removesuffix('/lora_A/kernel')
    a, b = extra[path], extra[f'{base}/lora_B/kernel']
    weight = weights.get(f'{base}/kernel')
    if weight is None:
      raise UserError(f'the model has no {rules.key_of(base)} to adapt')
    shape = (*weight.shape[:-2], a.shape[-2], b.shape[-1])
    if weight.shape != shape:
      raise UserError(
        f'{rules.key_of(base)} is {weight.shape[-2:]}, its adapter {shape[-2:]}'
      )
    weights[f'{base}/kernel'] = _add(weight, a, b, scale)
  return rules.unflatten(weights)


def _add(weight, a, b, scale: float):
  delta = scale * (a.astype(np.float32) @ b.astype(np.float32))
  total = (weight.astype(np.float32) + delta).astype(weight.dtype)
  if isinstance(weight, np.ndarray):
    mapped.release(weight)
  return total
