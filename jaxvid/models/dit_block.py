"""Parts of the Wan2.1 transformer: sizes, attention, block and head.

Facts: Wan2.1 `wan/modules/model.py`, Self-Forcing
`wan/modules/causal_model.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from flax import struct

from jaxvid.models.layers import (
  Dense,
  LayerNorm,
  RMSNorm,
  feed_forward,
  parameter,
)
from jaxvid.ops.attention import attention


@dataclasses.dataclass(frozen=True)
class DiTConfig:
  """Sizes of a Wan2.1 transformer.

  Attributes:
    dim: width D of the residual stream.
    ffn_dim: width of the feed-forward layer.
    num_heads: attention heads N; the head dimension is dim / num_heads.
    num_layers: blocks L.
    freq_dim: size of the sinusoidal time embedding.
    text_dim: size of the text encoder's output.
    text_len: text rows, padding included; all of them are attended.
    in_dim: channels of the input (latent and whatever conditions it).
    out_dim: latent channels C.
    patch_size: (frames, rows, columns) per token; frames must be 1.
    eps: of every norm.
    rope_theta: base of the rotary frequencies; small grids want a small one.
    rope_grid: (rows, columns) of tokens that pictures of every size are
      stretched to (AAPT); None = positions count tokens (Wan2.1).
    fps: frames per second that the model is told (SkyReels-V2, which knows 16
      and anything else); 0 = it is told none.
    linear: self-attention is linear (`ops.linear_attention`); its memory is
      of constant size.
  """

  dim: int = 1536
  ffn_dim: int = 8960
  num_heads: int = 12
  num_layers: int = 30
  freq_dim: int = 256
  text_dim: int = 4096
  text_len: int = 512
  in_dim: int = 16
  out_dim: int = 16
  patch_size: tuple[int, int, int] = (1, 2, 2)
  eps: float = 1e-6
  rope_theta: float = 10_000.0
  rope_grid: tuple[int, int] | None = None
  fps: int = 0
  linear: bool = False

  @property
  def head_dim(self) -> int:
    return self.dim // self.num_heads


WAN_1_3B = DiTConfig()
WAN_14B = DiTConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
# Width, heads, blocks and number of parameters of the model of AAPT, as far as
# they are known (supplement C; SeedVR's configuration of 8 B). Theirs has two
# streams, visual and text; in this block of one stream the feed-forward layer
# makes up for the other. Channels: noise, and the recycled frame.
AAPT_8B = DiTConfig(
  dim=3072, ffn_dim=24576, num_heads=24, num_layers=36, in_dim=32
)


@struct.dataclass
class TextKV:
  """Text keys and values of every layer, computed once per prompt.

  Attributes:
    k: `[L, B, text_len, N, D]` in the stacked layout, or a tuple of L.
    v: the same.
    mean: mean of the text encoder's rows, padding left out, `[B, text_dim]`
      in float32; says what a prompt is like (a memory with a bank).
  """

  k: Any
  v: Any
  mean: Any = None


@struct.dataclass
class Modulation:
  """Shifts, scales and gates of every layer, computed once per noise level.

  Attributes:
    blocks: float32 `[L, B or 1, F or 1, 6, D]`.
    head: float32 `[B or 1, F or 1, 2, D]`.
  """

  blocks: jax.Array
  head: jax.Array


def timestep_embedding(t: jax.Array, size: int) -> jax.Array:
  """Sinusoids `[cos | sin]` of timesteps `[...]` in 0..1000: `[..., size]`.

  The angle reaches 1000 rad, where a float32 product is off by 6e-5. The
  integer part of t times a 12-bit frequency is exact in float32; the rest is
  small and joins by the addition theorem.
  """
  half = size // 2
  frequency = 10_000.0 ** (-np.arange(half, dtype=np.float64) / half)
  mantissa, exponent = np.frexp(frequency)
  coarse = np.ldexp(np.round(mantissa * 2**12), exponent - 12)
  fine = (frequency - coarse).astype(np.float32)
  t = t.astype(jnp.float32)[..., None]
  whole = jnp.floor(t)
  big = whole * coarse.astype(np.float32)
  small = whole * fine + (t - whole) * frequency.astype(np.float32)
  cos = jnp.cos(big) * jnp.cos(small) - jnp.sin(big) * jnp.sin(small)
  sin = jnp.sin(big) * jnp.cos(small) + jnp.cos(big) * jnp.sin(small)
  return jnp.concatenate([cos, sin], -1)


class Attention(nn.Module):
  """The projections of self- and cross-attention.

  q and k are normed over the whole width before the head split (Wan2.1).

  Attributes:
    config: sizes.
    dtype: compute type.
    fused: projections of one input are one matrix, `qkv` or `kv`.
  """

  config: DiTConfig
  dtype: jnp.dtype = jnp.float32
  fused: bool = False

  def setup(self):
    dense = functools.partial(Dense, self.config.dim, dtype=self.dtype)
    self.q, self.k, self.v, self.o = dense(), dense(), dense(), dense()
    self.kv = Dense(2 * self.config.dim, dtype=self.dtype)
    self.qkv = Dense(3 * self.config.dim, dtype=self.dtype)
    self.norm_q = RMSNorm(self.config.eps)
    self.norm_k = RMSNorm(self.config.eps)

  def _heads(self, x):
    return x.reshape(*x.shape[:-1], self.config.num_heads, -1)

  def query(self, x: jax.Array) -> jax.Array:
    """Queries `[B, T, N, D]` of x `[B, T, C]`."""
    return self._heads(self.norm_q(self.q(x)))

  def key_value(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values `[B, T, N, D]` of x `[B, T, C]`."""
    if self.fused:
      k, v = jnp.split(self.kv(x), 2, -1)
    else:
      k, v = self.k(x), self.v(x)
    return self._heads(self.norm_k(k)), self._heads(v)

  def query_key_value(
    self, x: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values `[B, T, N, D]` of one input `[B, T, C]`."""
    if not self.fused:
      return self.query(x), *self.key_value(x)
    q, k, v = jnp.split(self.qkv(x), 3, -1)
    q, k = self.norm_q(q), self.norm_k(k)
    return self._heads(q), self._heads(k), self._heads(v)

  def out(self, x: jax.Array) -> jax.Array:
    """Joins the heads of `[B, T, N, D]` and projects."""
    return self.o(x.reshape(*x.shape[:-2], -1))


class Block(nn.Module):
  """Self-attention, cross-attention and feed-forward, modulated by time."""

  config: DiTConfig
  dtype: jnp.dtype = jnp.float32
  fused: bool = False

  @nn.compact
  def __call__(self, x, cache, text, time, plan):
    """One layer.

    Args:
      x: tokens `[B, F, P, D]`, P per latent frame.
      cache: the layer's K and V (see `Memory`), or None.
      text: (K, V) of the text, or embedded text `[B, text_len, D]`.
      time: modulation `[B, F or 1, 6, D]` in float32 before the layer's own
        part is added; or complete, a tuple of six `[B, F or 1, D]`.
      plan: says what to write and attend.

    Returns:
      Tokens like x, and the layer's new cache.
    """
    config = self.config
    if not isinstance(time, tuple):
      table = parameter(
        self, 'modulation', nn.initializers.normal(0.02), (6, config.dim)
      )
      time = modulation_parts(time + table)
    shift1, scale1, gate1, shift2, scale2, gate2 = (m[:, :, None] for m in time)
    frames = x.shape[1]
    self_attn = Attention(config, self.dtype, self.fused, name='self_attn')
    cross_attn = Attention(config, self.dtype, self.fused, name='cross_attn')

    h = modulate(LayerNorm(config.eps)(x), shift1, scale1, self.dtype)
    h = rearrange(h, 'b f p d -> b (f p) d')
    h, cache = plan.attend(*self_attn.query_key_value(h), cache)
    h = rearrange(self_attn.out(h), 'b (f p) d -> b f p d', f=frames)
    x = gated(x, h, gate1)

    h = LayerNorm(config.eps, affine=True, name='norm3')(x)
    h = rearrange(h, 'b f p d -> b (f p) d')
    k, v = text if isinstance(text, tuple) else cross_attn.key_value(text)
    h = cross_attn.out(attend_text(cross_attn.query(h), k, v, plan.backend))
    h = rearrange(h, 'b (f p) d -> b f p d', f=frames)
    x = (x + h).astype(x.dtype)

    h = modulate(LayerNorm(config.eps)(x), shift2, scale2, self.dtype)
    first = Dense(config.ffn_dim, dtype=self.dtype, name='ffn_0')
    second = Dense(config.dim, dtype=self.dtype, name='ffn_2')
    h = feed_forward(h, first, second, gelu)
    return gated(x, h, gate2), cache


def attend_text(q, k, v, backend: str) -> jax.Array:
  """Attention over a prompt, or over one prompt per chunk.

  Args:
    q: queries `[B, T, N, D]`.
    k: keys of the text `[B, rows, N, D]`; or `[B, n, rows, N, D]`, which n
      equal parts of the tokens attend in order.
    v: its values, like `k`.
    backend: attention backend.
  """
  if k.ndim == 4:
    return attention(q, k, v, backend=backend)
  parts = q.reshape(-1, q.shape[1] // k.shape[1], *q.shape[2:])
  k, v = (x.reshape(-1, *x.shape[2:]) for x in (k, v))
  return attention(parts, k, v, backend=backend).reshape(q.shape)


def modulate(x, shift, scale, dtype):
  """Tokens shifted and scaled in float32, as `dtype`."""
  return (x.astype(jnp.float32) * (1 + scale) + shift).astype(dtype)


def gated(x, h, gate):
  """Residual sum x + gate h in float32, as the type of x."""
  x32 = x.astype(jnp.float32)
  return (x32 + h.astype(jnp.float32) * gate).astype(x.dtype)


def modulation_parts(time: jax.Array) -> tuple[jax.Array, ...]:
  """`[..., n, D]` -> n arrays `[..., D]`."""
  return tuple(jnp.moveaxis(time, -2, 0))


class Head(nn.Module):
  """Final modulated norm and projection to patches."""

  config: DiTConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, time):
    """`[B, F, P, D]` and time -> `[B, F, P, patch * C]`.

    Time is `[B, F or 1, D]`, or complete: a tuple of shift and scale of it.
    """
    config = self.config
    if not isinstance(time, tuple):
      table = parameter(
        self, 'modulation', nn.initializers.normal(0.02), (2, config.dim)
      )
      time = modulation_parts(time[:, :, None] + table)
    shift, scale = (m[:, :, None] for m in time)
    x = modulate(LayerNorm(config.eps)(x), shift, scale, self.dtype)
    size = int(np.prod(config.patch_size)) * config.out_dim
    return Dense(size, dtype=self.dtype, name='head')(x)


def gelu(x: jax.Array) -> jax.Array:
  """The tanh form of GELU (Wan2.1)."""
  return nn.gelu(x, approximate=True)
