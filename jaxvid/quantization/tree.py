"""Which layers of a transformer are quantised, in memory and in files.

All linear layers of the blocks are: attention, attention to the text, feed
forward. So are, in every mode as weights alone, those of the projection of time
to modulation, whose input is one row per frame. Kept as they are: embeddings of
patches, time and text, norms, biases, the head, which are small, and the first
and last things a picture passes through.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.errors import UserError
from jaxvid.ops.quantized import FP8, MODES, QuantizedKernel
from jaxvid.quantization.kernels import Scheme, quantize_group

# Layers of a block that read the same input: together or not at all.
GROUPS = (
  ('self_attn/q', 'self_attn/k', 'self_attn/v'),
  ('self_attn/o',),
  ('cross_attn/q',),
  ('cross_attn/k', 'cross_attn/v'),
  ('cross_attn/o',),
  ('ffn_0',),
  ('ffn_2',),
)
# Computed in float32, once per time step.
TIME = 'time_projection_1'
LAYER = re.compile(
  rf'blocks_\d+/(?:self_attn/[qkvo]|cross_attn/[qkvo]|ffn_[02])|{TIME}'
)
Tree = Mapping[str, Any]


def groups(params: Tree) -> list[tuple[str, ...]]:
  """Names of layers, `blocks_0/self_attn/q`, by common input."""
  blocks = [name for name in params if re.fullmatch(r'blocks_\d+', name)]
  blocks.sort(key=lambda name: int(name.split('_')[1]))
  return [
    (TIME,),
    *(
      tuple(f'{block}/{layer}' for layer in group)
      for block in blocks
      for group in GROUPS
    ),
  ]


def layer(params: Tree, name: str) -> Tree:
  """Kernel and bias of a layer."""
  for part in name.split('/'):
    params = params[part]
  return params


def quantize(
  params: Tree,
  scheme: Scheme,
  tops: Mapping[str, np.ndarray] | None = None,
  keep: frozenset[str] = frozenset(),
) -> dict[str, Any]:
  """A transformer's parameters with kernels in 8 bits.

  Args:
    params: unrolled.
    scheme: how.
    tops: layer -> largest magnitude of each channel of its input.
    keep: layers that stay as they are.

  Raises:
    UserError: quantised already, or ranges are needed and not given.
  """
  if is_quantized(params):
    raise UserError('the transformer is quantised already')
  if scheme.calibrated and tops is None:
    raise UserError(
      f'{scheme.mode} with these settings needs ranges of inputs: calibrate '
      'with configs/quantize.py'
    )
  found = {}
  for names in groups(params):
    if keep.isdisjoint(names):
      kernels = [layer(params, name)['kernel'] for name in names]
      top = None if tops is None else tops[names[0]]
      own = Scheme() if names == (TIME,) else scheme
      made = quantize_group(kernels, top, own)
      found |= dict(zip(names, made, strict=True))
  return replace(params, lambda name, leaf: found.get(name, leaf))


def abstract(shapes: Tree, mode: str) -> dict[str, Any]:
  """Shapes of a transformer's parameters with kernels in 8 bits.

  Args:
    shapes: of the parameters as they are, unrolled; `jax.ShapeDtypeStruct`.
    mode: one of `MODES`; inputs get a static scale where they are rounded.
  """
  spec = jax.ShapeDtypeStruct

  def make(name, leaf):
    if not LAYER.fullmatch(name):
      return leaf
    own = 'int8' if name == TIME else mode
    width, features = leaf.shape
    kind = FP8 if own == 'fp8' else jnp.int8
    scale = spec(() if own == 'fp8' else (features,), jnp.float32)
    inputs = None if own == 'int8' else spec((), jnp.float32)
    return QuantizedKernel(
      spec((features, width), kind), scale, inputs, mode=own
    )

  return replace(shapes, make)


def replace(tree: Tree, make: Callable[[str, Any], Any]) -> dict[str, Any]:
  """The tree with `make(layer, kernel)` in the place of every kernel."""

  def walk(node, path):
    if not isinstance(node, Mapping):
      return node
    return {
      name: make('/'.join(path), child)
      if name == 'kernel'
      else walk(child, (*path, name))
      for name, child in node.items()
    }

  return walk(tree, ())


def kernels(tree: Tree) -> Iterator[tuple[str, QuantizedKernel]]:
  """Layers in 8 bits and their kernels."""
  found = []
  replace(tree, lambda name, leaf: found.append((name, leaf)))
  return ((n, leaf) for n, leaf in found if isinstance(leaf, QuantizedKernel))


def is_quantized(tree: Tree) -> bool:
  """Whether any layer is in 8 bits."""
  return any(True for _ in kernels(tree))


def encode(tree: Tree) -> dict[str, Any]:
  """For a file: kernels become dicts of plain arrays, small where possible.

  8-bit floats are stored as bytes, scales of integers in bfloat16 (which
  holds them exactly), branches of low rank in bfloat16.
  """

  def pack(_, kernel):
    if not isinstance(kernel, QuantizedKernel):
      return kernel
    parts = {
      name: value
      for name, value in vars(kernel).items()
      if value is not None and name != 'mode'
    }
    parts = jax.tree.map(np.asarray, parts)
    if parts['values'].dtype == FP8:
      parts['values'] = parts['values'].view(np.uint8)
    for name in {'scale', 'down', 'up'} & set(parts):
      parts[name] = parts[name].astype(jnp.bfloat16)
    return parts

  return replace(tree, pack)


def decode(tree: Tree, mode: str) -> dict[str, Any]:
  """The inverse of `encode`.

  Raises:
    UserError: not what `encode` makes.
  """
  if mode not in MODES:
    raise UserError(f'no quantisation {mode!r}; there are {", ".join(MODES)}')

  def unpack(name, kernel):
    if not isinstance(kernel, Mapping):
      return kernel
    parts = {key: np.asarray(value) for key, value in kernel.items()}
    try:
      parts['scale'] = parts['scale'].astype(np.float32)
      if parts['values'].dtype == np.uint8:
        parts['values'] = parts['values'].view(FP8)
      own = 'int8' if name == TIME else mode
      return QuantizedKernel(**parts, mode=own)
    except (KeyError, TypeError, ValueError) as error:
      raise UserError(
        f'{name}/kernel is no kernel in 8 bits: {error}'
      ) from None

  return replace(tree, unpack)


def placed(kernel: QuantizedKernel, dtype: str) -> QuantizedKernel:
  """A kernel in 8 bits on the device, its branch in the type of computing."""

  def put(path, x):
    branch = path[0].name in ('down', 'up')
    return jnp.array(x, dtype if branch else None)

  return jax.tree.map_with_path(put, kernel)


def unquantized(tree: Tree) -> dict[str, Any]:
  """The tree of shapes that a plain model has, to be compared with one."""

  def plain(_, kernel):
    if not isinstance(kernel, QuantizedKernel):
      return kernel
    return jax.ShapeDtypeStruct(kernel.shape, jnp.float32)

  return replace(tree, plain)


def size(tree: Tree, dtype: str | None = None) -> int:
  """Bytes of all leaves as `encode` stores them, floats in `dtype`."""
  total = 0
  for leaf in jax.tree.leaves(encode(tree)):
    kind = leaf.dtype
    if dtype and jnp.issubdtype(kind, jnp.floating):
      kind = jnp.dtype(dtype)
    total += int(np.prod(leaf.shape)) * kind.itemsize
  return total
