"""Vision transformers that embed pictures: CLIP's and DINO's, frozen.

For scoring only, so they are functions of tensors as published checkpoints
name them (see `evaluation.learned`), with no modules around them.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

Tensors = Mapping[str, jax.Array]
HEAD = 64  # width of a head in every model of both families


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """What the tensors do not tell.

  Attributes:
    eps: of the layer norms.
    quick_gelu: x sigmoid(1.702 x), as CLIP has it; else the exact GELU.
  """

  eps: float
  quick_gelu: bool


CLIP = VisionConfig(eps=1e-5, quick_gelu=True)
DINO = VisionConfig(eps=1e-6, quick_gelu=False)


def encode(
  config: VisionConfig, tensors: Tensors, images: jax.Array
) -> jax.Array:
  """Embeds pictures `[B, H, W, 3]`, normalised as the model wants them.

  Args:
    config: which family.
    tensors: 'patch.weight' `[D, 3, P, P]`, 'class' `[D]`, 'position'
      `[1 + n, D]` for this size of the picture, 'blocks.I.*', 'norm.*', and
      where there are any 'patch.bias', 'pre.*' and 'project' `[D, E]`.
    images: H and W at least P; a rest beyond whole patches is left out.

  Returns:
    `[B, D]`, or `[B, E]` projected: the class token's output.
  """
  x = _patches(tensors, images)
  first = jnp.broadcast_to(tensors['class'], (len(x), 1, x.shape[-1]))
  x = jnp.concatenate([first, x], 1) + tensors['position']
  if 'pre.weight' in tensors:
    x = _norm(config, tensors, 'pre', x)
  for i in range(depth(tensors)):
    block = {
      name.removeprefix(f'blocks.{i}.'): value
      for name, value in tensors.items()
      if name.startswith(f'blocks.{i}.')
    }
    x = x + _attend(block, _norm(config, block, 'norm1', x))
    x = x + _mlp(config, block, _norm(config, block, 'norm2', x))
  x = _norm(config, tensors, 'norm', x[:, 0])
  return x @ tensors['project'] if 'project' in tensors else x


def depth(tensors: Mapping[str, object]) -> int:
  """Number of blocks."""
  return sum(name.endswith('.norm1.weight') for name in tensors)


def _patches(tensors: Tensors, images: jax.Array) -> jax.Array:
  """`[B, H, W, 3]` -> `[B, n, D]`."""
  kernel = tensors['patch.weight']
  size = kernel.shape[-1]
  rows, columns = images.shape[1] // size, images.shape[2] // size
  x = images[:, : rows * size, : columns * size]
  x = x.reshape(len(x), rows, size, columns, size, 3)
  x = x.transpose(0, 1, 3, 5, 2, 4).reshape(len(x), rows * columns, -1)
  x = x @ kernel.reshape(len(kernel), -1).T
  return x + tensors['patch.bias'] if 'patch.bias' in tensors else x


def _norm(config: VisionConfig, tensors: Tensors, name: str, x: jax.Array):
  mean = x.mean(-1, keepdims=True)
  variance = jnp.square(x - mean).mean(-1, keepdims=True)
  x = (x - mean) * jax.lax.rsqrt(variance + config.eps)
  return x * tensors[f'{name}.weight'] + tensors[f'{name}.bias']


def _linear(tensors: Tensors, name: str, x: jax.Array) -> jax.Array:
  return x @ tensors[f'{name}.weight'].T + tensors[f'{name}.bias']


def _attend(block: Tensors, x: jax.Array) -> jax.Array:
  batch, count, dim = x.shape
  qkv = _linear(block, 'qkv', x).reshape(batch, count, 3, dim // HEAD, HEAD)
  q, k, v = jnp.moveaxis(qkv, 2, 0)
  out = jax.nn.dot_product_attention(q, k, v)
  return _linear(block, 'out', out.reshape(x.shape))


def _mlp(config: VisionConfig, block: Tensors, x: jax.Array) -> jax.Array:
  x = _linear(block, 'fc1', x)
  if config.quick_gelu:
    x = x * jax.nn.sigmoid(1.702 * x)
  else:
    x = jax.nn.gelu(x, approximate=False)
  return _linear(block, 'fc2', x)
