"""What passes through the linear layers of a network, seen from outside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvid.models.layers import Dense
from jaxvid.ops.quantized import linear
from jaxvid.quantization.tree import LAYER, Tree, layer

Measure = Callable[[str, jax.Array, jax.Array], Any]


def observed(function: Callable, measure: Measure) -> Callable:
  """`function`, which also returns `{layer: measure(layer, x, y)}`.

  Args:
    function: applies a Linen network, unrolled, outside of any inner loop.
    measure: of a layer's name, its input `[M, K]` and its output `[M, N]`.
  """

  def run(*args):
    seen = {}

    def note(call, inputs, options, context):
      y = call(*inputs, **options)
      module = context.module
      name = '/'.join(module.path)
      if (
        isinstance(module, Dense)
        and context.method_name == '__call__'
        and LAYER.fullmatch(name)
      ):
        rows = (z.reshape(-1, z.shape[-1]) for z in (inputs[0], y))
        seen[name] = measure(name, *rows)
      return y

    with nn.intercept_methods(note):
      result = function(*args)
    return result, seen

  return run


def input_range(name: str, x: jax.Array, y: jax.Array) -> jax.Array:
  """Largest magnitude of every channel of the input, `[K]`."""
  del name, y
  return jnp.max(jnp.abs(x.astype(jnp.float32)), 0)


def rounding_error(params: Tree, quantized: Tree) -> Measure:
  """Squared error of the layer in 8 bits on the same input, and of nothing.

  Args:
    params: the network's parameters.
    quantized: the same with kernels in 8 bits.
  """

  def measure(name, x, y):
    own = layer(params, name)
    kernel = layer(quantized, name)['kernel']
    other = linear(x, kernel, own['bias'], x.dtype)
    y = y.astype(jnp.float32)
    error = jnp.sum((other.astype(jnp.float32) - y) ** 2)
    return jnp.stack([error, jnp.sum(y * y)])

  return measure
