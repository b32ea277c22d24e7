"""TAEHV, the tiny autoencoder for Wan latents (taew2_1).

A stack of 2-D convolutions in which some blocks also see their own input of
the previous time step: that is all the state there is. Parameters are named
as in the project (`decoder/3` -> `decoder_3`). The functions below are pure
and mirror `jaxvid.models.vae`: normalised latents, video in [-1, 1] (the
network's own range is [0, 1]).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvid.errors import UserError
from jaxvid.models import conv
from jaxvid.models.conv import conv2d, subpixel_conv
from jaxvid.models.layers import parameter
from jaxvid.models.vae_layers import fan_in_normal, kernel_of, run

State = Any


@dataclasses.dataclass(frozen=True)
class TAEConfig:
  """Sizes of a TAEHV.

  Attributes:
    decoder_widths: channels of the three decoder levels, coarse to fine, and
      of the last layers.
    encoder_width: channels of the encoder; 0 = a decoder alone.
    z_dim: latent channels.
    encoder_time_strides: frames merged at each encoder level.
    decoder_time_strides: frames grown at each decoder level.
    blocks: memory blocks per level.
    dtype: compute type; parameters are float32.
    folded: the decoder's parameters are folded (see `fast`).
    out_first: and stored with output channels first.
  """

  decoder_widths: tuple[int, int, int, int] = (256, 128, 64, 64)
  encoder_width: int = 64
  z_dim: int = 16
  encoder_time_strides: tuple[int, int, int] = (2, 2, 1)
  decoder_time_strides: tuple[int, int, int] = (1, 2, 2)
  blocks: int = 3
  dtype: str = 'float32'
  folded: bool = False
  out_first: bool = False

  @property
  def time_factor(self) -> int:
    """Video frames per latent frame."""
    factor = 1
    for stride in self.decoder_time_strides:
      factor *= stride
    return factor


TAEW2_1 = TAEConfig()
SHAPES_TAE = TAEConfig(decoder_widths=(32, 24, 24, 16), encoder_width=0)


class _Conv(nn.Module):
  """Convolution of every frame; stateless."""

  features: int
  size: int = 3
  stride: int = 1
  use_bias: bool = True
  gain: float = 1.0  # of the initial variance
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    shape = (self.size, self.size, x.shape[-1], self.features)
    initial = fan_in_normal(shape, self.gain)
    kernel = kernel_of(self, initial, shape, self.out_first)
    # Not 'SAME', which pads right and bottom only where the stride is 2.
    margin = (self.size // 2, self.size // 2)
    strides = (self.stride, self.stride)
    padding = (margin, margin)
    x = conv2d(x, kernel.astype(self.dtype), strides, padding, self.out_first)
    if self.use_bias:
      bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)
    return x, state


class _MemoryBlock(nn.Module):
  """Residual block that also sees its input of the previous time step.

  The state is that last input; before the video it is zero.
  """

  features: int
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    if state is None:
      state = jnp.zeros_like(x[:, :1])
    past = jnp.concatenate([state, x[:, :-1]], axis=1)
    conv = functools.partial(
      _Conv, self.features, dtype=self.dtype, out_first=self.out_first
    )
    y, state = jnp.concatenate([x, past], axis=-1), x[:, -1:]
    if self.out_first:
      # As in `vae_layers.CausalConv3D`: a donated state is not copied.
      y = jax.lax.optimization_barrier(y)
      state = y[:, -1:, ..., : x.shape[-1]]
    y = nn.relu(conv(gain=2.0, name='conv_0')(y)[0])
    y = nn.relu(conv(gain=2.0, name='conv_2')(y)[0])
    # Nine blocks in a row must not let the features grow without bound.
    y = conv(gain=0.1, name='conv_4')(y)[0]
    return nn.relu(y + x), state


class _Pool(nn.Module):
  """Merges `stride` frames into one by a 1x1 convolution; stateless."""

  stride: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    b, t, h, w, c = x.shape
    s = self.stride
    x = jnp.moveaxis(x.reshape(b, t // s, s, h, w, c), 2, 4)
    x = x.reshape(b, t // s, h, w, s * c)
    conv = _Conv(c, 1, use_bias=False, dtype=self.dtype, name='conv')
    return conv(x)[0], state


class _Grow(nn.Module):
  """Doubles height and width, makes `stride` frames of each; stateless.

  Upstream enlarges first; a 1x1 convolution does not care, and is four times
  cheaper on the small picture.
  """

  stride: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    b, t, h, w, c = x.shape
    s = self.stride
    conv = _Conv(s * c, 1, use_bias=False, dtype=self.dtype, name='conv')
    x = conv(x)[0].reshape(b, t, h, w, s, c)
    x = jnp.moveaxis(x, 4, 2).reshape(b, s * t, h, w, c)
    return jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3), state


class _GrowConv(nn.Module):
  """`_Grow` and the convolution after it, folded into one; stateless."""

  features: int
  stride: int
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    s, shape = self.stride, (2, 2, x.shape[-1], 4 * self.stride * self.features)
    kernel = kernel_of(self, fan_in_normal(shape), shape, self.out_first)
    y = subpixel_conv(x, kernel.astype(self.dtype), s, self.out_first)
    y = jnp.moveaxis(y, -2, 2)
    return y.reshape(y.shape[0], -1, *y.shape[3:]), state


def _squash(x: jax.Array, state: State = None):
  """Tames outliers of the latents."""
  return jnp.tanh(x / 3.0) * 3.0, state


def _relu(x: jax.Array, state: State = None):
  return nn.relu(x), state


def _nothing(x: jax.Array, state: State = None):
  """Keeps the numbering where upstream has a layer of its own."""
  return x, state


class TAE(nn.Module):
  """Both halves; list positions are upstream's layer numbers."""

  config: TAEConfig

  def setup(self):
    c = self.config
    dtype = jnp.dtype(c.dtype)
    first = c.out_first
    conv = functools.partial(_Conv, dtype=dtype, out_first=first)
    widths = c.decoder_widths
    decoder = [_squash, conv(widths[0]), _relu]
    for i, stride in enumerate(c.decoder_time_strides):
      decoder += [
        _MemoryBlock(widths[i], dtype, first) for _ in range(c.blocks)
      ]
      if c.folded:
        decoder += [_nothing, _nothing]
        decoder += [_GrowConv(widths[i + 1], stride, dtype, first)]
        continue
      decoder += [_nothing, _Grow(stride, dtype)]
      decoder += [conv(widths[i + 1], use_bias=False)]
    decoder += [_relu, conv(3)]
    self.decoder = decoder
    conv = functools.partial(_Conv, dtype=dtype)
    width = c.encoder_width
    if not width:
      return
    encoder = [conv(width), _relu]
    for stride in c.encoder_time_strides:
      encoder += [_Pool(stride, dtype), conv(width, stride=2, use_bias=False)]
      encoder += [_MemoryBlock(width, dtype) for _ in range(c.blocks)]
    encoder += [conv(c.z_dim)]
    self.encoder = encoder

  def encode(self, rgb: jax.Array, state: State = None):
    """`[B, 4n, H, W, 3]` in [0, 1] to latents `[B, n, H/8, W/8, z_dim]`."""
    x, state = run(self.encoder, rgb.astype(self.config.dtype), state)
    return x.astype(jnp.float32), state

  def decode(self, z: jax.Array, state: State = None):
    """Latents to `[B, 4n, 8h, 8w, 3]`, about [0, 1], nothing trimmed."""
    x, state = run(self.decoder, z.astype(self.config.dtype), state)
    return x.astype(jnp.float32), state

  def __call__(self, rgb: jax.Array, z: jax.Array) -> None:
    """Runs what there is, to make the parameters."""
    if self.config.encoder_width:
      self.encode(rgb)
    self.decode(z)


def init(config: TAEConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters, float32."""
  rgb = jnp.zeros((1, config.time_factor, 8, 8, 3))
  z = jnp.zeros((1, 1, 1, 1, config.z_dim))
  return TAE(config).init(key, rgb, z)['params']


def encode(config: TAEConfig, params, video: jax.Array, state: State = None):
  """Latents of a segment.

  Args:
    config: sizes.
    params: parameter tree (the `encoder_*` are used).
    video: `[B, T, H, W, 3]` in [-1, 1]. Groups of 4 frames make a latent; a
      last group that is not full is filled by repeating its last frame.
    state: what the call for the previous segment returned; None starts.

  Returns:
    `(latents [B, ceil(T / 4), H / 8, W / 8, z_dim], state)`, float32.

  Raises:
    UserError: for a frame size that is not a multiple of 8, or if there is
      no encoder.
  """
  if not config.encoder_width:
    raise UserError('this tiny autoencoder has no encoder; use its VAE')
  frames, height, width = video.shape[1:4]
  if height % 8 or width % 8:
    raise UserError(f'frame size {height}x{width} is not a multiple of 8')
  missing = -frames % config.time_factor
  rgb = (video + 1.0) / 2.0
  if missing:
    rgb = jnp.concatenate([rgb, *[rgb[:, -1:]] * missing], axis=1)
  return TAE(config).apply({'params': params}, rgb, state, method='encode')


def decode(config: TAEConfig, params, z: jax.Array, state: State = None):
  """Video of a segment of normalised latents.

  Args:
    config: sizes.
    params: parameter tree (the `decoder_*` are used).
    z: `[B, t, h, w, z_dim]`.
    state: what the call for the previous segment returned; None starts a
      video.

  Returns:
    `(video [B, 4t - 3 or 4t, 8h, 8w, 3], state)`, float32 in [-1, 1].
  """
  start = state is None
  video, state = _decode(config, params, z, state)
  return (video[:, config.time_factor - 1 :] if start else video), state


def decode_raw(config: TAEConfig, params, z: jax.Array) -> jax.Array:
  """`decode` of a whole video before clipping: for training."""
  rgb, _ = TAE(config).apply({'params': params}, z, method='decode')
  return rgb[:, config.time_factor - 1 :] * 2.0 - 1.0


def fast(config: TAEConfig, params, out_first: bool):
  """The decoder alone, arranged for speed; computes the same.

  Args:
    config: sizes.
    params: parameter tree of numpy or jax arrays.
    out_first: store output channels first, as GPUs like it.

  Returns:
    `(config, params)` for `decode` and `decode_chunk`: growing, enlarging and
    the convolution after them, all linear, are one; parameters are numpy.
  """
  if config.folded:
    raise ValueError('the decoder is arranged already')
  tree = {k: params[k] for k in params if k.startswith('decoder_')}
  tree = jax.tree.map(np.asarray, tree)
  for level, stride in enumerate(config.decoder_time_strides):
    # Layers before a level, its blocks, enlarging, growing, convolution.
    at = 3 + level * (config.blocks + 3) + config.blocks + 1
    grow = tree.pop(f'decoder_{at}')['conv']['kernel']
    kernel = tree[f'decoder_{at + 1}']['kernel']
    width = kernel.shape[2]
    grow32 = grow.astype(np.float32).reshape(-1, stride, width)
    both = np.einsum('isc,hwco->hwiso', grow32, kernel.astype(np.float32))
    folded = conv.fold_upsample(both).astype(kernel.dtype)
    tree[f'decoder_{at + 1}'] = {'kernel': folded}
  if out_first:
    tree = jax.tree.map(lambda x: conv.store(x) if x.ndim == 4 else x, tree)
  return dataclasses.replace(config, folded=True, out_first=out_first), tree


def one_program(config: TAEConfig) -> bool:
  """Whether the start of a stream runs the same program as the rest: yes."""
  del config
  return True


def decode_chunk(config: TAEConfig, params, z: jax.Array, state: State, first):
  """`decode` with one compilation for the start and the rest of a stream.

  Args:
    config: sizes.
    params: parameter tree.
    z: `[B, n, h, w, z_dim]`.
    state: `init_state` at the start, later what the last call returned.
    first: not needed here; the decoders share one signature.

  Returns:
    `(video [B, 4n, 8h, 8w, 3], state)`; at the start of a video the caller
    drops the leading 3 frames.
  """
  del first
  return _decode(config, params, z, state)


def init_state(config: TAEConfig, batch: int, height: int, width: int):
  """The decoder state before a stream: all zeros.

  Args:
    config: sizes.
    batch: number of streams.
    height: latent rows.
    width: latent columns.
  """
  shapes = _state_shapes(config, batch, height, width)
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


@functools.lru_cache(maxsize=16)
def _state_shapes(config: TAEConfig, batch: int, height: int, width: int):
  def first(z):
    key = jax.random.key(0)
    return TAE(config).init_with_output(key, z, method='decode')

  z = jax.ShapeDtypeStruct((batch, 1, height, width, config.z_dim), jnp.float32)
  return jax.eval_shape(first, z)[0][1]


def _decode(config: TAEConfig, params, z: jax.Array, state: State):
  apply = TAE(config).apply
  rgb, state = apply({'params': params}, z, state, method='decode')
  return jnp.clip(rgb, 0.0, 1.0) * 2.0 - 1.0, state
