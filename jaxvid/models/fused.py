"""Parameters as a stream likes them, made once when a model is loaded.

Same network, same numbers, other layout: one matrix where several read the
same input (q, k and v; k and v of the text), rotary pairs apart so that a
rotation works on two halves, and matrices in the compute type. `DiT` reads it
with `fused=True`. Reference: jaxvid/models/dit_block.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.models.dit_block import DiTConfig
from jaxvid.models.layers import Params, unstack_layers
from jaxvid.ops.quantized import QuantizedKernel, join, take
from jaxvid.ops.rope import split_pairs


def fuse(
  config: DiTConfig, params: Params, dtype: jnp.dtype = jnp.float32
) -> dict[str, Any]:
  """The streaming layout of a transformer's parameters.

  Args:
    config: sizes.
    params: as trained, stacked or unrolled; LoRA, if any, merged.
    dtype: of the matrices; norms, modulation and the embedding of time keep
      float32.

  Returns:
    Unrolled parameters for `DiT(config, dtype, scan=False, fused=True)`.
  """
  fused = {}
  for name, part in unstack_layers(params).items():
    if name.startswith('blocks_'):
      part = _block(config, part)
    fused[name] = _cast(part, dtype, name)
  return fused


def _block(config: DiTConfig, block: Params) -> dict[str, Any]:
  own, cross = block['self_attn'], block['cross_attn']
  pairs = split_pairs(config.head_dim)
  first = np.arange(config.num_heads)[:, None] * config.head_dim
  order = (first + pairs).reshape(-1)

  def permuted(part):
    return {name: _take(leaf, order) for name, leaf in part.items()}

  self_attn = {
    'qkv': _join(permuted(own['q']), permuted(own['k']), own['v']),
    'norm_q': permuted(own['norm_q']),
    'norm_k': permuted(own['norm_k']),
    'o': own['o'],
  }
  kept = {name: cross[name] for name in ('q', 'norm_q', 'norm_k', 'o')}
  cross_attn = {'kv': _join(cross['k'], cross['v']), **kept}
  return {**block, 'self_attn': self_attn, 'cross_attn': cross_attn}


def _join(*parts: Params) -> dict[str, Any]:
  """Linear layers of one input as one."""
  kernels = [part['kernel'] for part in parts]
  if isinstance(kernels[0], QuantizedKernel):
    kernel = join(kernels)
  else:
    kernel = jnp.concatenate(kernels, -1)
  return {
    'kernel': kernel,
    'bias': jnp.concatenate([part['bias'] for part in parts], -1),
  }


def _take(leaf: Any, order: np.ndarray) -> Any:
  """Output features in another order."""
  if isinstance(leaf, QuantizedKernel):
    return take(leaf, order)
  return leaf[..., order]


def _cast(tree: Any, dtype: jnp.dtype, name: str) -> Any:
  """Matrices and their biases in `dtype`, everything else in float32."""
  if isinstance(tree, QuantizedKernel):
    return jax.tree.map(jnp.asarray, tree)
  if not isinstance(tree, dict):
    return jnp.asarray(tree, dtype)
  exact = name.startswith(('norm', 'time_'))
  return {
    key: _cast(
      value, jnp.float32 if exact or key == 'modulation' else dtype, key
    )
    for key, value in tree.items()
  }
