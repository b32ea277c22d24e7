"""A discriminator on a transformer's intermediate tokens.

One learned register per chosen block reads all tokens of that block by
cross-attention; the registers together are judged by a small MLP. The
backbone is a diffusion transformer, usually the critic's, so that it knows
prompts and noise levels already. Source: Self-Forcing `model/gan.py`,
`utils/wan_wrapper.py` and `GanAttentionBlock` of `wan/modules/model.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxvid.errors import UserError
from jaxvid.models.dit import Attention, DiT, DiTConfig, TextKV
from jaxvid.models.layers import (
  Dense,
  LayerNorm,
  Params,
  RMSNorm,
  parameter,
)
from jaxvid.ops.attention import attention


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
  """Sizes of the head.

  Attributes:
    dit: sizes of the backbone; width, heads and norms of the head follow it.
    layers: blocks whose tokens are read, 0 = the first.
    ffn_dim: width of the registers' feed-forward layers.
    logits: numbers per judged clip or frame.
    per_frame: judge every latent frame from its own tokens (AAPT: with a
      causal backbone, every length at once) instead of the whole clip.
  """

  dit: DiTConfig
  layers: tuple[int, ...] = (13, 21, 29)
  ffn_dim: int = 8192
  logits: int = 1
  per_frame: bool = False

  def __post_init__(self):
    last = self.dit.num_layers - 1
    if not self.layers or not all(0 <= i <= last for i in self.layers):
      raise UserError(
        f'layers={self.layers} must name one or more blocks, 0 to {last}'
      )


class RegisterBlock(nn.Module):
  """A register attends tokens, then passes a feed-forward layer."""

  config: DiscriminatorConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, register: jax.Array, tokens: jax.Array) -> jax.Array:
    """Register `[B, 1, D]` and tokens `[B, T, D]` -> `[B, 1, D]`."""
    config, sizes = self.config, self.config.dit
    cross = Attention(sizes, self.dtype, name='cross_attn')
    h = LayerNorm(sizes.eps, affine=True, name='norm3')(tokens)
    k, v = cross.key_value(h)
    read = cross.out(attention(cross.query(register), k, v))
    register = register + read
    h = LayerNorm(sizes.eps)(register)
    h = Dense(config.ffn_dim, dtype=self.dtype, name='ffn_0')(h)
    h = nn.gelu(h, approximate=True)
    return register + Dense(sizes.dim, dtype=self.dtype, name='ffn_2')(h)


class Discriminator(nn.Module):
  """Tokens of chosen blocks -> logits, high = real.

  Attributes:
    config: sizes.
    dtype: compute type; norms, softmax and the logits stay float32.
  """

  config: DiscriminatorConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: tuple[jax.Array, ...]) -> jax.Array:
    """Judges clips.

    Args:
      features: `[B, F, P, D]` of each block in `config.layers`.

    Returns:
      Logits `[B, K]`, float32; per frame `[B, F K]`.
    """
    config, dim = self.config, self.config.dit.dim
    batch = features[0].shape[0]
    groups = 'b f p d -> b (f p) d'
    if config.per_frame:
      groups = 'b f p d -> (b f) p d'
    registers = parameter(
      self, 'registers', nn.initializers.normal(0.02), (len(config.layers), dim)
    )
    registers = RMSNorm(config.dit.eps, name='norm')(registers)
    read = []
    for i, layer in enumerate(features):
      tokens = rearrange(layer.astype(self.dtype), groups)
      one = registers[i].astype(self.dtype)
      one = jnp.broadcast_to(one, (tokens.shape[0], 1, dim))
      block = RegisterBlock(config, self.dtype, name=f'blocks_{i}')
      read.append(block(one, tokens)[:, 0])
    h = jnp.concatenate(read, -1).astype(jnp.float32)
    h = LayerNorm(1e-5, affine=True, name='head_norm')(h)
    h = nn.silu(Dense(dim, name='head_0')(h))
    return Dense(config.logits, name='head_2')(h).reshape(batch, -1)


def discriminate(
  dit: DiT,
  head: Discriminator,
  params: Params,
  x: jax.Array,
  t: jax.Array,
  text: jax.Array | TextKV,
  plan=None,
) -> jax.Array:
  """Logits of clips under a backbone and a head.

  Args:
    dit: the backbone.
    head: the head, of the backbone's sizes.
    params: `{'dit': ..., 'head': ...}`.
    x: latents `[B, F, H, W, C]`.
    t: time steps `[B]` or `[B, F]`.
    text: see `DiT`.
    plan: see `DiT`; by default every token attends every token.

  Returns:
    `[B, K]`, float32, high = real.
  """
  _, features = dit.apply(
    {'params': params['dit']},
    x,
    t,
    text,
    head.config.layers,
    plan,
    method='features',
  )
  return head.apply({'params': params['head']}, features)
