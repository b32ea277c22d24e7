"""The UMT5 text encoder.

Facts: Wan2.1 `wan/modules/t5.py`. Every layer has its own relative position
bias; attention is not scaled by the head size; there are no biases.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvid.models.layers import Params, RMSNorm


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Sizes of a UMT5 encoder.

  Attributes:
    vocab_size: rows of the token embedding.
    dim: width D of the residual stream and of the output.
    dim_attn: width of all heads together.
    dim_ffn: width of the gated feed-forward layer.
    num_heads: attention heads N.
    num_layers: blocks.
    num_buckets: relative positions told apart, half of them per direction.
    max_distance: distance from which all positions share the last bucket.
    eps: of every norm.
  """

  vocab_size: int = 256_384
  dim: int = 4096
  dim_attn: int = 4096
  dim_ffn: int = 10_240
  num_heads: int = 64
  num_layers: int = 24
  num_buckets: int = 32
  max_distance: int = 128
  eps: float = 1e-6


UMT5_XXL = TextConfig()


def position_buckets(
  relative: np.ndarray, num_buckets: int = 32, max_distance: int = 128
) -> np.ndarray:
  """Bucket of each relative position (key - query), int32, same shape.

  Half of the buckets serve each direction; of those, half are exact and the
  rest grow logarithmically up to `max_distance`.
  """
  half = num_buckets // 2
  exact = half // 2
  distance = np.abs(relative)
  ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  scale = np.float32(math.log(max_distance / exact))
  far = np.log(ratio) / scale * np.float32(half - exact)
  far = np.minimum(exact + far.astype(np.int32), half - 1)
  bucket = np.where(distance < exact, distance, far)
  return (bucket + half * (relative > 0)).astype(np.int32)


class _Attention(nn.Module):
  """Self-attention with an additive bias."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, bias):
    """x `[B, T, D]`, bias `[B or 1, N, T, T]` in float32 -> `[B, T, D]`."""
    config = self.config
    head = config.dim_attn // config.num_heads
    # Queries start small because attention is not scaled.
    q = self._dense(x, 'q', config.dim_attn, (config.dim * head) ** -0.5)
    k = self._dense(x, 'k', config.dim_attn, config.dim**-0.5)
    v = self._dense(x, 'v', config.dim_attn, config.dim**-0.5)
    q, k, v = (
      y.reshape(*y.shape[:2], config.num_heads, head) for y in (q, k, v)
    )
    logits = jnp.einsum(
      'bqnd,bknd->bnqk', q, k, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(logits + bias, -1).astype(self.dtype)
    out = jnp.einsum('bnqk,bknd->bqnd', weights, v)
    out = out.reshape(*x.shape[:2], config.dim_attn)
    return self._dense(out, 'o', config.dim, config.dim_attn**-0.5)

  def _dense(self, x, name, size, std):
    return _dense(size, std, self.dtype, name)(x)


class _FeedForward(nn.Module):
  """`fc2(fc1(x) * gelu(gate(x)))`."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    config = self.config
    wide = functools.partial(
      _dense, config.dim_ffn, config.dim**-0.5, self.dtype
    )
    gate = nn.gelu(wide('gate_0')(x), approximate=True)
    h = wide('fc1')(x) * gate
    return _dense(config.dim, config.dim_ffn**-0.5, self.dtype, 'fc2')(h)


class _PositionBias(nn.Module):
  """Attention bias of each bucket and head."""

  config: TextConfig

  @nn.compact
  def __call__(self, buckets):
    """Buckets `[T, T]` -> bias `[1, N, T, T]` in float32."""
    config = self.config
    std = (2 * config.num_buckets * config.num_heads) ** -0.5
    table = nn.Embed(
      config.num_buckets,
      config.num_heads,
      dtype=jnp.float32,
      embedding_init=nn.initializers.normal(std),
      name='embedding',
    )
    return table(buckets).transpose(2, 0, 1)[None]


class _Block(nn.Module):
  """One encoder layer."""

  config: TextConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, buckets, mask):
    config = self.config
    bias = _PositionBias(config, name='pos_embedding')(buckets)
    if mask is not None:
      hidden = jnp.finfo(jnp.float32).min
      bias = jnp.where(mask[:, None, None, :], bias, hidden)
    h = RMSNorm(config.eps, name='norm1')(x)
    x = x + _Attention(config, self.dtype, name='attn')(h, bias)
    h = RMSNorm(config.eps, name='norm2')(x)
    return x + _FeedForward(config, self.dtype, name='ffn')(h), None


class UMT5(nn.Module):
  """The encoder stack.

  Attributes:
    config: sizes.
    dtype: compute type; norms, position bias and softmax stay float32.
    scan: True scans over layers (parameters stacked under `blocks`), False
      unrolls them (`blocks_0`, ...), as the DiT does.
  """

  config: TextConfig
  dtype: jnp.dtype = jnp.float32
  scan: bool = False

  @nn.compact
  def __call__(
    self, ids: jax.Array, mask: jax.Array | None = None
  ) -> jax.Array:
    """Encodes tokens.

    Args:
      ids: token ids `[B, T]`.
      mask: nonzero where a token may be attended, `[B, T]`; None: everywhere.

    Returns:
      `[B, T, D]` in `dtype`. Rows of masked tokens are meaningless.
    """
    config, length = self.config, ids.shape[1]
    position = np.arange(length)
    buckets = position_buckets(
      position[None, :] - position[:, None],
      config.num_buckets,
      config.max_distance,
    )
    mask = None if mask is None else mask.astype(bool)
    x = nn.Embed(
      config.vocab_size,
      config.dim,
      dtype=self.dtype,
      embedding_init=nn.initializers.normal(1.0),
      name='token_embedding',
    )(ids)
    if self.scan:
      layers = nn.scan(
        _Block,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=(nn.broadcast, nn.broadcast),
        length=config.num_layers,
      )
      x, _ = layers(config, self.dtype, name='blocks')(x, buckets, mask)
    else:
      for i in range(config.num_layers):
        block = _Block(config, self.dtype, name=f'blocks_{i}')
        x, _ = block(x, buckets, mask)
    return RMSNorm(config.eps, name='norm')(x)


def encode(
  config: TextConfig,
  params: Params,
  ids: jax.Array,
  mask: jax.Array,
  dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
  """Prompt embeddings as the transformer takes them.

  Args:
    config: sizes.
    params: parameters, stacked or unrolled.
    ids: token ids `[B, T]`.
    mask: nonzero for tokens, zero for padding `[B, T]`.
    dtype: compute type.

  Returns:
    `[B, T, D]`; rows of padding are zero (Self-Forcing's form; cutting to
    the prompt's length and padding later, as Wan2.1 does, is the same).
  """
  model = UMT5(config, dtype, scan='blocks' in params)
  embeds = model.apply({'params': params}, ids, mask)
  return jnp.where(mask.astype(bool)[..., None], embeds, 0)


def _dense(size: int, std: float, dtype: jnp.dtype, name: str) -> nn.Dense:
  return nn.Dense(
    size,
    use_bias=False,
    dtype=dtype,
    kernel_init=nn.initializers.normal(std),
    name=name,
  )
