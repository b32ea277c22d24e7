"""The Wan VAE: causal 3-D autoencoder, 4x in time and 8x in space.

Parameters are named as in Wan2.1 (`encoder/downsamples_0/residual_2/kernel`).
The functions below are pure: `encode`, `decode` and `decode_chunk` take a
config and a parameter tree, and a state where a video goes on.

A video of 1 + 4k frames has 1 + k latents. Latents are normalised:
`(z - mean) / std` with the statistics of the config.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvid.errors import UserError
from jaxvid.models import conv
from jaxvid.models import vae_layers as layers

State = Any

_WAN_MEAN = (
  *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
  *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WAN_STD = (
  *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
  *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclasses.dataclass(frozen=True)
class VAEConfig:
  """Sizes of a Wan VAE and the statistics of its latents.

  Attributes:
    dim: width of the finest level.
    z_dim: latent channels.
    dim_mult: width of each level as a multiple of `dim`, finest first.
    num_res_blocks: residual blocks per encoder level (the decoder has one
      more).
    temporal_downsample: which of the spatial halvings also halve time.
    latent_mean: per-channel mean of raw latents.
    latent_std: per-channel standard deviation of raw latents.
    conv: form of the causal convolutions, see `vae_layers.temporal_conv`:
      `frames` and `channels` are fast on CPU, `native` on GPU.
    dtype: compute type; parameters are float32.
    folded: the decoder's parameters are folded (see `fast`).
    out_first: and stored with output channels first.
  """

  dim: int = 96
  z_dim: int = 16
  dim_mult: tuple[int, ...] = (1, 2, 4, 4)
  num_res_blocks: int = 2
  temporal_downsample: tuple[bool, ...] = (False, True, True)
  latent_mean: tuple[float, ...] = (0.0,) * 16
  latent_std: tuple[float, ...] = (1.0,) * 16
  conv: str = 'frames'
  dtype: str = 'float32'
  folded: bool = False
  out_first: bool = False

  @property
  def time_factor(self) -> int:
    """Video frames per latent frame."""
    return 2 ** sum(self.temporal_downsample)

  @property
  def space_factor(self) -> int:
    """Pixels per latent position, along height and width."""
    return 2 ** (len(self.dim_mult) - 1)


WAN_VAE = VAEConfig(latent_mean=_WAN_MEAN, latent_std=_WAN_STD)
SHAPES_VAE = VAEConfig(
  dim=8, dim_mult=(1, 3, 5, 5), num_res_blocks=1, conv='channels'
)


class _Encoder(nn.Module):
  """Video `[B, T, H, W, 3]` to moments `[B, t, h, w, 2 z_dim]`."""

  config: VAEConfig

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    c = self.config
    options = {'form': c.conv, 'dtype': jnp.dtype(c.dtype)}
    causal = functools.partial(layers.CausalConv3D, **options)
    block = functools.partial(layers.ResidualBlock, **options)
    widths = [c.dim * m for m in c.dim_mult]
    names = (f'downsamples_{i}' for i in itertools.count())
    sequence = [causal(widths[0], name='conv1')]
    for level, width in enumerate(widths):
      for _ in range(c.num_res_blocks):
        sequence.append(block(width, name=next(names)))
      if level + 1 < len(widths):
        halve_time = c.temporal_downsample[level]
        sequence.append(
          layers.Downsample(halve_time, name=next(names), **options)
        )
    sequence += [
      block(widths[-1], name='middle_0'),
      layers.FrameAttention(options['dtype'], name='middle_1'),
      block(widths[-1], name='middle_2'),
      layers.NormSiLU(name='head_0'),
      causal(2 * c.z_dim, name='head_2'),
    ]
    return layers.run(sequence, x, state)


class _Decoder(nn.Module):
  """Raw latents `[B, t, h, w, z_dim]` to video `[B, T, H, W, 3]`."""

  config: VAEConfig

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    c = self.config
    dtype = jnp.dtype(c.dtype)
    options = {'form': c.conv, 'dtype': dtype, 'out_first': c.out_first}
    causal = functools.partial(layers.CausalConv3D, **options)
    block = functools.partial(layers.ResidualBlock, **options)
    widths = [c.dim * m for m in reversed(c.dim_mult)]
    names = (f'upsamples_{i}' for i in itertools.count())
    sequence = [
      causal(widths[0], name='conv1'),
      block(widths[0], name='middle_0'),
      layers.FrameAttention(dtype, c.out_first, name='middle_1'),
      block(widths[0], name='middle_2'),
    ]
    for level, width in enumerate(widths):
      for _ in range(c.num_res_blocks + 1):
        sequence.append(block(width, name=next(names)))
      if level + 1 < len(widths):
        double_time = c.temporal_downsample[-1 - level]
        up = functools.partial(layers.Upsample, folded=c.folded, **options)
        sequence.append(up(double_time, name=next(names)))
    sequence += [layers.NormSiLU(name='head_0'), causal(3, name='head_2')]
    return layers.run(sequence, x, state)


class VAE(nn.Module):
  """Encoder, decoder and the 1x1x1 convolutions on either side of `z`."""

  config: VAEConfig

  def setup(self):
    c = self.config
    dtype = jnp.dtype(c.dtype)
    point = (1, 1, 1)
    self.encoder = _Encoder(c)
    self.conv1 = layers.CausalConv3D(2 * c.z_dim, point, dtype=dtype)
    self.conv2 = layers.CausalConv3D(
      c.z_dim, point, c.conv, dtype, out_first=c.out_first
    )
    self.decoder = _Decoder(c)

  def moments(self, video: jax.Array, state: State = None):
    """Raw posterior mean and log variance, and the encoder's state."""
    video = video.astype(self.config.dtype)
    y, state = self.encoder(video, state)
    y, _ = self.conv1(y)
    mean, log_variance = jnp.split(y.astype(jnp.float32), 2, axis=-1)
    return mean, log_variance, state

  def decode_raw(self, z: jax.Array, state: State = None):
    """Video of raw (not normalised) latents, and the decoder's state."""
    x, _ = self.conv2(z.astype(self.config.dtype))
    x, state = self.decoder(x, state)
    return x.astype(jnp.float32), state

  def __call__(self, video: jax.Array) -> jax.Array:
    """Reconstruction of a whole video through the posterior mean."""
    mean, _, _ = self.moments(video)
    return self.decode_raw(mean)[0]


def init(config: VAEConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters, float32."""
  side = config.space_factor
  video = jnp.zeros((1, 1 + config.time_factor, side, side, 3))
  return VAE(config).init(key, video)['params']


def moments(config: VAEConfig, params, video: jax.Array, state: State = None):
  """Raw posterior of a segment: `(mean, log_variance, state)`.

  Arguments as in `encode`.
  """
  _check_video(config, video, state)
  return VAE(config).apply({'params': params}, video, state, method='moments')


def encode(config: VAEConfig, params, video: jax.Array, state: State = None):
  """Normalised latents of a segment: the posterior mean, never a sample.

  Args:
    config: sizes and latent statistics.
    params: parameter tree.
    video: `[B, T, H, W, 3]` in [-1, 1]; T is 1 + 4k at the start of a video
      (`state` None), 4k where it goes on.
    state: what the call for the previous segment returned.

  Returns:
    `(latents [B, 1 + k or k, H / 8, W / 8, z_dim], state)`, float32.

  Raises:
    UserError: for a length or a size that does not divide.
  """
  mean, _, state = moments(config, params, video, state)
  return normalize(config, mean), state


def decode(config: VAEConfig, params, z: jax.Array, state: State = None):
  """Video of a segment of normalised latents.

  Args:
    config: sizes and latent statistics.
    params: parameter tree (`decoder` and `conv2` are used).
    z: `[B, t, h, w, z_dim]`.
    state: what the call for the previous segment returned; None starts a
      video.

  Returns:
    `(video [B, 4t - 3 or 4t, 8h, 8w, 3], state)`, float32, not clipped.
  """
  raw = denormalize(config, z)
  return VAE(config).apply({'params': params}, raw, state, method='decode_raw')


def fast(config: VAEConfig, params, out_first: bool):
  """The decoder alone, arranged for speed; computes the same.

  Args:
    config: sizes.
    params: parameter tree of numpy or jax arrays.
    out_first: store output channels first, as GPUs like it.

  Returns:
    `(config, params)` for `decode` and `decode_chunk`: enlarging is folded
    into the convolutions that follow it, parameters are numpy arrays.
  """
  stacked = config.conv == 'channels'

  def arrange(path, leaf):
    names, leaf = [entry.key for entry in path], np.asarray(leaf)
    if names[-1] != 'kernel':
      return leaf
    if 'resample_1' in names:
      leaf = conv.fold_upsample(leaf).astype(leaf.dtype)
    return conv.store(leaf, stacked and leaf.ndim == 5) if out_first else leaf

  if config.folded:
    raise ValueError('the decoder is arranged already')
  kept = {name: params[name] for name in ('conv2', 'decoder')}
  config = dataclasses.replace(config, folded=True, out_first=out_first)
  return config, jax.tree.map_with_path(arrange, kept)


def one_program(config: VAEConfig) -> bool:
  """Whether the start of a stream runs the same program as the rest: no."""
  del config
  return False


def decode_chunk(config: VAEConfig, params, z: jax.Array, state: State, first):
  """`decode` with one signature for the start and the rest of a stream.

  Args:
    config: sizes and latent statistics.
    params: parameter tree.
    z: `[B, n, h, w, z_dim]`.
    state: `init_state` at the start, later what the last call returned.
    first: does `z` start the video? A bool that is traced makes one program
      of both cases, which decides on the device; a Python bool makes two.

  Returns:
    `(video [B, 4n, 8h, 8w, 3], state)`. When `first`, the leading 3 frames
    are padding that the caller drops.
  """

  def start(z, state):
    del state
    video, state = decode(config, params, z)
    missing = config.time_factor - 1
    video = jnp.pad(video, ((0, 0), (missing, 0), (0, 0), (0, 0), (0, 0)))
    return video, state

  def go_on(z, state):
    return decode(config, params, z, state)

  if isinstance(first, bool):
    return start(z, state) if first else go_on(z, state)
  return jax.lax.cond(first, start, go_on, z, state)


def init_state(config: VAEConfig, batch: int, height: int, width: int):
  """The decoder state of `decode_chunk` before a stream: all zeros.

  Args:
    config: sizes.
    batch: number of streams.
    height: latent rows.
    width: latent columns.
  """
  shapes = _state_shapes(config, batch, height, width)
  return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


@functools.lru_cache(maxsize=16)
def _state_shapes(config: VAEConfig, batch: int, height: int, width: int):
  def run(z):
    model = VAE(config)
    return model.init_with_output(jax.random.key(0), z, method='decode_raw')

  z = jax.ShapeDtypeStruct((batch, 1, height, width, config.z_dim), jnp.float32)
  return jax.eval_shape(run, z)[0][1]


def normalize(config: VAEConfig, z: jax.Array) -> jax.Array:
  """Raw latents to zero mean and unit deviation per channel."""
  mean, std = jnp.array(config.latent_mean), jnp.array(config.latent_std)
  return (z - mean) / std


def denormalize(config: VAEConfig, z: jax.Array) -> jax.Array:
  """The inverse of `normalize`."""
  return z * jnp.array(config.latent_std) + jnp.array(config.latent_mean)


def _check_video(config: VAEConfig, video: jax.Array, state: State) -> None:
  frames, height, width = video.shape[1:4]
  start = 1 if state is None else 0
  group, side = config.time_factor, config.space_factor
  if frames < max(start, 1) or (frames - start) % group:
    kind = f'{start} + {group}k' if start else f'{group}k'
    raise UserError(f'the VAE encodes {kind} frames here, not {frames}')
  if height % side or width % side:
    raise UserError(f'frame size {height}x{width} is not a multiple of {side}')
