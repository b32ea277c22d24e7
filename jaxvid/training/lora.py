"""LoRA: small trained matrices beside large frozen ones.

An adapter is a tree like the model's, with `lora_A/kernel [in, rank]` and
`lora_B/kernel [rank, out]` below every adapted matrix `[in, out]`; a layer
stack adds a leading axis to both. It adds `alpha / rank * A @ B`. Attached to
the model's parameters it is applied as it stands (`models.layers.Dense`);
merged into them it costs nothing. Files in peft's layout are read and written
by `jaxvid.convert`.

Sources: LoRA (Hu et al. 2021); LongLive, appendix F.2.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.errors import UserError, check_regex
from jaxvid.parallel.mesh import leaf_name

# Every linear layer of the blocks: ten per block, as LongLive has it.
BLOCKS = r'blocks.*/((self|cross)_attn/[qkvo]|ffn_[02])'

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Size, strength and place of adapters.

  Attributes:
    rank: inner size of every pair.
    alpha: strength; the pair's product is scaled by alpha / rank.
    targets: regular expression, searched in the names of layers such as
      `blocks/self_attn/q` or `blocks_0/ffn_2`.
  """

  rank: int = 256
  alpha: float = 256.0
  targets: str = BLOCKS

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f'lora.rank must be >= 1, not {self.rank}')
    check_regex('lora.targets', self.targets)

  @property
  def scale(self) -> float:
    """Factor of `A @ B`."""
    return self.alpha / self.rank


def targets(config: LoRAConfig, params: Params) -> dict[str, Any]:
  """Kernels to adapt: name of the layer -> array or shape.

  Raises:
    UserError: there is none.
  """
  kernels = {}
  for path, leaf in jax.tree.leaves_with_path(params):
    layer, _, name = leaf_name(path).rpartition('/')
    # A matrix, or a stack of them; convolutions have more axes.
    stacked = layer.startswith('blocks/')
    if name == 'kernel' and leaf.ndim == 2 + stacked:
      kernels[layer] = leaf
  chosen = {
    name: leaf
    for name, leaf in kernels.items()
    if re.search(config.targets, name)
  }
  if not chosen:
    names = ', '.join(sorted(kernels)[:3])
    raise UserError(
      f'lora.targets={config.targets!r} matches no layer (there are {names}, '
      '...)'
    )
  return chosen


def create(config: LoRAConfig, params: Params, key: jax.Array) -> dict:
  """A fresh adapter: A random (as peft's), B zero, so nothing changes yet.

  Args:
    config: settings.
    params: the model's parameters, or their shapes.
    key: of the random numbers.
  """
  tree: dict[str, Any] = {}
  for i, (layer, leaf) in enumerate(sorted(targets(config, params).items())):
    *lead, rows, columns = leaf.shape
    bound = rows**-0.5
    a = jax.random.uniform(
      jax.random.fold_in(key, i),
      (*lead, rows, config.rank),
      minval=-bound,
      maxval=bound,
    )
    b = jnp.zeros((*lead, config.rank, columns))
    _place(tree, layer, {'lora_A': {'kernel': a}, 'lora_B': {'kernel': b}})
  return tree


def _place(tree: dict[str, Any], layer: str, value: Any) -> None:
  *parents, name = layer.split('/')
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[name] = value


def attach(params: Params, adapter: Params, scale: float) -> dict[str, Any]:
  """Parameters with an adapter beside the matrices it belongs to.

  Nothing is multiplied: the network does so, token by token. Differentiable
  in both.

  Args:
    params: the model's parameters.
    adapter: in the same layout.
    scale: `LoRAConfig.scale`.

  Raises:
    UserError: the adapter belongs to another model.
  """
  tree = dict(params)
  for name, value in adapter.items():
    if name == 'lora_A':
      tree[name] = value
    elif name == 'lora_B':
      tree[name] = {'kernel': scale * value['kernel']}
    elif name in tree:
      tree[name] = attach(tree[name], value, scale)
    else:
      raise UserError(f'the model has no {name} to adapt')
  return tree


def merge(params: Params, adapter: Params, scale: float) -> dict[str, Any]:
  """Parameters with an adapter added to the matrices it belongs to.

  The sum is formed in float32 and takes the type of the matrix. Arguments and
  errors as of `attach`.
  """
  tree = dict(params)
  for name, value in adapter.items():
    if name not in tree:
      raise UserError(f'the model has no {name} to adapt')
    if 'lora_A' in value:
      a, b = (value[f'lora_{x}']['kernel'] for x in 'AB')
      kernel = tree[name]['kernel']
      delta = scale * jnp.matmul(a, b, precision='highest')
      total = (kernel.astype(jnp.float32) + delta).astype(kernel.dtype)
      tree[name] = {**tree[name], 'kernel': total}
    else:
      tree[name] = merge(tree[name], value, scale)
  return tree


def count(adapter: Params) -> int:
  """Trained numbers of an adapter."""
  return sum(leaf.size for leaf in jax.tree.leaves(adapter))
