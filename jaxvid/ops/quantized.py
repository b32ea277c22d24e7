"""Linear layers with kernels in 8 bits.

Three modes. `int8`: weights in 8 bits, products in the compute type: half the
size. `w8a8`: inputs in 8 bits as well, products of integers. `fp8`: inputs and
weights as 8-bit floats (e4m3), written as GPUs of the Hopper generation fuse
it: one product of 8-bit floats with scales, bias, activation and the rounding
of the next layer's input in its epilogue. Scales of `fp8` are powers of two,
so scaling never rounds, and every device computes the same up to the order of
a sum.
"""

import jax
import jax.numpy as jnp
from flax import struct

MODES = ('int8', 'w8a8', 'fp8')
INT8_MAX = 127.0
FP8 = jnp.float8_e4m3fn
FP8_MAX = 448.0
ROWS = 16  # Products of 8-bit floats want a multiple of these.


@struct.dataclass
class QuantizedKernel:
  """Kernel of a linear layer K -> N in 8 bits.

  With `input_gain` g and `down`, `up`, the kernel it stands for is
  `diag(g) (values^T scale + down up)`.

  Attributes:
    values: int8 or float8_e4m3fn `[N, K]`; output features first, which saves
      a transpose at every call.
    scale: float32 `[N]` (integers) or `[]` (floats), worth of a unit.
    input_scale: float32 `[]`, worth of a unit of the input; None: weights
      alone are in 8 bits, or (w8a8) each token brings its own scale.
    input_gain: float32 `[K]`, applied to the input first; None: ones.
    down: `[K, R]` of a part of low rank in the compute type; None: there is
      none.
    up: `[R, N]` of it.
    mode: one of `MODES`.
  """

  values: jax.Array
  scale: jax.Array
  input_scale: jax.Array | None = None
  input_gain: jax.Array | None = None
  down: jax.Array | None = None
  up: jax.Array | None = None
  mode: str = struct.field(pytree_node=False, default='int8')

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the kernel it stands for, `[..., K, N]`."""
    *lead, features, width = self.values.shape
    return (*lead, width, features)


def dequantize(kernel: QuantizedKernel) -> jax.Array:
  """The kernel `[K, N]` in float32."""
  dense = kernel.values.astype(jnp.float32) * _column(kernel.scale)
  dense = dense.T
  if kernel.down is not None:
    dense = dense + kernel.down.astype(jnp.float32) @ kernel.up.astype(
      jnp.float32
    )
  if kernel.input_gain is not None:
    dense = dense * kernel.input_gain[:, None]
  return dense


def linear(
  x: jax.Array, kernel: QuantizedKernel, bias: jax.Array, dtype: jnp.dtype
) -> jax.Array:
  """`x @ kernel + bias`.

  Args:
    x: `[M, K]` in `dtype`.
    kernel: of K -> N.
    bias: `[N]`.
    dtype: compute type, and that of the result `[M, N]`.
  """
  if kernel.input_gain is not None:
    x = (x.astype(jnp.float32) * kernel.input_gain).astype(dtype)
  form = {'int8': _weights_alone, 'w8a8': _integers, 'fp8': _floats}
  y = form[kernel.mode](x, kernel, bias, dtype)
  if kernel.down is not None:
    y = y + (x @ kernel.down.astype(dtype)) @ kernel.up.astype(dtype)
  return y


def _weights_alone(x, kernel, bias, dtype):
  weight = kernel.values.astype(jnp.float32) * _column(kernel.scale)
  y = _product(x, weight.astype(dtype), dtype)
  return y + bias.astype(dtype)


def _integers(x, kernel, bias, dtype):
  x = x.astype(jnp.float32)
  scale = kernel.input_scale
  if scale is None:
    top = jnp.max(jnp.abs(x), -1, keepdims=True)
    scale = jnp.maximum(top, 1e-12) / INT8_MAX
  units = jnp.clip(jnp.round(x / scale), -INT8_MAX, INT8_MAX)
  y = _product(units.astype(jnp.int8), kernel.values, jnp.int32)
  y = y.astype(jnp.float32) * (scale * kernel.scale) + bias
  return y.astype(dtype)


def _floats(x, kernel, bias, dtype):
  scale = kernel.input_scale.astype(dtype)
  rows = jnp.clip(x.astype(dtype) / scale, -FP8_MAX, FP8_MAX).astype(FP8)
  count = len(rows)
  rows = jnp.pad(rows, ((0, -count % ROWS), (0, 0)))
  # Not `(rows @ values) * (scale * scale)`: this is the form that the compiler
  # recognises as one product of 8-bit floats.
  y = _product(
    rows.astype(dtype) * scale,
    kernel.values.astype(dtype) * kernel.scale.astype(dtype),
    dtype,
  )
  return (y + bias.astype(dtype))[:count]


def _product(x, weight, dtype):
  """`[M, K]`, `[N, K]` -> `[M, N]`."""
  return jax.lax.dot_general(
    x, weight, (((1,), (1,)), ((), ())), preferred_element_type=dtype
  )


def _column(scale):
  return scale[..., None] if scale.ndim else scale


def take(kernel: QuantizedKernel, order) -> QuantizedKernel:
  """The kernel with its output features in another order."""
  scale = kernel.scale[order] if kernel.scale.ndim else kernel.scale
  up = None if kernel.up is None else kernel.up[:, order]
  return kernel.replace(values=kernel.values[order], scale=scale, up=up)


def join(kernels: tuple[QuantizedKernel, ...]) -> QuantizedKernel:
  """Kernels of one input as one, their output features one after the other.

  They must share what is done to the input, and the scale of 8-bit floats.
  """
  first = kernels[0]
  scale = first.scale
  if scale.ndim:
    scale = jnp.concatenate([k.scale for k in kernels])
  down = up = None
  if first.down is not None:
    down = jnp.concatenate([k.down for k in kernels], 1)
    up = jax.scipy.linalg.block_diag(*[k.up for k in kernels])
  values = jnp.concatenate([k.values for k in kernels])
  return first.replace(values=values, scale=scale, down=down, up=up)
