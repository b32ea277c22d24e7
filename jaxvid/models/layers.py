"""Small building blocks shared by the models."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvid.ops.quantized import ROWS, QuantizedKernel, linear

Params = Mapping[str, Any]


def parameter(
  module: nn.Module, name: str, initial: Callable, shape: tuple[int, ...]
) -> jax.Array:
  """`module.param(name, initial, shape)`, cheaper to trace.

  For a parameter that exists, flax traces its initialiser to learn the shape
  it should have, in every layer of every tick.

  Raises:
    flax.errors.ScopeParamShapeError: it exists with another shape.
  """
  value = module.get_variable('params', name)
  if value is not None and jnp.shape(value) == shape:
    return value
  return module.param(name, initial, shape)


class Dense(nn.Module):
  """Linear layer over the last axis, as one product of two matrices.

  `nn.Dense` keeps the leading axes apart, and then XLA's backward pass on a
  CPU is several times slower, in bfloat16 above all. Parameters may hold an
  adapter beside the kernel (`training.lora.attach`), and the kernel may be a
  `QuantizedKernel`: the same layer with products in 8 bits.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1], self.features)
    kernel = self.quantized()
    if kernel is None:
      kernel = parameter(self, 'kernel', nn.initializers.lecun_normal(), shape)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
    if isinstance(kernel, QuantizedKernel):
      y = linear(rows, kernel, bias, self.dtype)
    else:
      y = rows @ kernel.astype(self.dtype) + bias.astype(self.dtype)
    if self.has_variable('params', 'lora_A'):
      a, b = (
        self.get_variable('params', name)['kernel'].astype(self.dtype)
        for name in ('lora_A', 'lora_B')
      )
      y = y + rows @ a @ b
    return y.reshape(*x.shape[:-1], self.features)

  def quantized(self) -> QuantizedKernel | None:
    """The kernel, if it is one in 8 bits."""
    if not self.has_variable('params', 'kernel'):
      return None
    kernel = self.get_variable('params', 'kernel')
    return kernel if isinstance(kernel, QuantizedKernel) else None


def feed_forward(
  x: jax.Array,
  first: Dense,
  second: Dense,
  activation: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """`second(activation(first(x)))`.

  Between two layers of 8-bit floats rows stay padded: no slice keeps the
  activation and the rounding for the second out of the first one's epilogue.
  """
  kernel = first.quantized()
  if kernel is None or kernel.mode != 'fp8':
    return second(activation(first(x)))
  rows = x.reshape(-1, x.shape[-1])
  padded = jnp.pad(rows, ((0, -len(rows) % ROWS), (0, 0)))
  y = second(activation(first(padded)))[: len(rows)]
  return y.reshape(*x.shape[:-1], y.shape[-1])


class RMSNorm(nn.Module):
  """Root-mean-square norm over the last axis, computed in float32."""

  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = parameter(self, 'scale', nn.initializers.ones, (x.shape[-1],))
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
      y = y * parameter(self, 'scale', nn.initializers.ones, shape)
      y = y + parameter(self, 'bias', nn.initializers.zeros, shape)
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
