"""Small building blocks shared by the models."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Params = Mapping[str, Any]


class Dense(nn.Module):
  """Linear layer over the last axis, as one product of two matrices.

  `nn.Dense` keeps the leading axes apart, and then XLA's backward pass on a
  CPU is several times slower, in bfloat16 above all. Parameters may hold an
  adapter beside the kernel (`training.lora.attach`).
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
    y = rows @ kernel.astype(self.dtype) + bias.astype(self.dtype)
    if self.has_variable('params', 'lora_A'):
      a, b = (
        self.get_variable('params', name)['kernel'].astype(self.dtype)
        for name in ('lora_A', 'lora_B')
      )
      y = y + rows @ a @ b
    return y.reshape(*x.shape[:-1], self.features)


class RMSNorm(nn.Module):
  """Root-mean-square norm over the last axis, computed in float32."""

  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    return (y * scale).astype(x.dtype)


class LayerNorm(nn.Module):
  """Layer norm over the last axis in float32, with or without weights.

  The two-pass variance is deliberate: the one-pass form loses digits when
  the mean is large.
  """

  eps: float = 1e-6
  affine: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, -1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    if self.affine:
      shape = (x.shape[-1],)
      y = y * self.param('scale', nn.initializers.ones, shape)
      y = y + self.param('bias', nn.initializers.zeros, shape)
    return y.astype(x.dtype)


def stack_layers(params: Params) -> dict[str, Any]:
  """Merges `blocks_0, blocks_1, ...` into `blocks` with a leading axis.

  The stacked layout serves the layer scan (training); the unrolled layout
  serves streaming. Arrays of one leaf must have equal shapes.
  """
  names = [name for name in params if re.fullmatch(r'blocks_\d+', name)]
  names.sort(key=lambda name: int(name.split('_')[1]))
  rest = {name: params[name] for name in params if name not in names}
  if not names:
    return rest
  layers = [params[name] for name in names]
  rest['blocks'] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
  return rest


def unstack_layers(params: Params) -> dict[str, Any]:
  """The inverse of `stack_layers`."""
  rest = {name: params[name] for name in params if name != 'blocks'}
  if 'blocks' not in params:
    return rest
  depth = jax.tree.leaves(params['blocks'])[0].shape[0]
  for i in range(depth):
    rest[f'blocks_{i}'] = jax.tree.map(
      lambda leaf, i=i: leaf[i], params['blocks']
    )
  return rest
