"""Layers of the Wan VAE: causal in time, explicit state, channels last.

Every layer maps `(x, state) -> (y, state)` over a *segment* of a video,
`[B, T, H, W, C]`. State `None` means that the segment starts the video;
otherwise it is what the layer returned for the previous segment. All frames
of a segment are computed in parallel: upstream's loop over groups of 1, 4,
4, ... frames has the closed forms given at each layer (Wan2.1,
wan/modules/vae.py).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvid.models.conv import conv2d, store, subpixel_conv
from jaxvid.models.layers import parameter

State = Any
_HISTORY = 2  # frames a causal convolution of kernel 3 looks back


def rms_norm(x: jax.Array, gamma: jax.Array) -> jax.Array:
  """`x / |x| * sqrt(C) * gamma` over channels, in float32."""
  y = x.astype(jnp.float32)
  # max(|x|, 1e-12) written on the square: its gradient is finite at 0.
  square = jnp.sum(y * y, -1, keepdims=True)
  y = y * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
  return (y * (gamma * x.shape[-1] ** 0.5)).astype(x.dtype)


class RMSNorm(nn.Module):
  """`rms_norm` with its parameter."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1],)
    return rms_norm(x, parameter(self, 'gamma', nn.initializers.ones, shape))


def run(sequence, x: jax.Array, state: State = None):
  """Applies layers in order; the state is the tuple of their states."""
  past = (None,) * len(sequence) if state is None else state
  states = []
  for layer, before in zip(sequence, past, strict=True):
    x, after = layer(x, before)
    states.append(after)
  return x, tuple(states)


class NormSiLU(nn.Module):
  """Stateless norm and SiLU in front of a head's convolution."""

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    gamma = parameter(self, 'gamma', nn.initializers.ones, (x.shape[-1],))
    return nn.silu(rms_norm(x, gamma)), state


def fan_in_normal(kernel_shape: tuple[int, ...], gain: float = 1.0):
  """Initialiser: normal with variance `gain / inputs`."""
  fan_in = 1
  for size in kernel_shape[:-1]:
    fan_in *= size
  return nn.initializers.normal((gain / fan_in) ** 0.5)


def present_only(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Initialiser of `[kt, kh, kw, I, O]`: weights for the newest frame alone.

  A fresh network treats every frame as a picture, so that it can learn from
  pictures first, which is far quicker, and from motion after.
  """
  kernel = fan_in_normal(shape[1:])(key, shape[1:])
  return jnp.zeros(shape).at[-1].set(kernel)


def copy_frame(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Initialiser of `[kt, 1, 1, I, O]`: every output frame is the newest."""
  del key
  width, out = shape[-2:]
  copies = jnp.tile(jnp.eye(width), (1, out // width))
  return jnp.zeros(shape).at[-1, 0, 0].set(copies)


def kernel_of(module, initial, shape, out_first=False, stacked=False):
  """The kernel of a convolution, in the layout that it is stored in.

  Args:
    module: whose parameter it is.
    initial: initialiser of the plain shape.
    shape: `[..., I, O]`.
    out_first: stored `[O, ..., I]`, see `conv.store`.
    stacked: and with the frames of `[kt, kh, kw, I, O]` beside the channels.
  """
  if not out_first:
    return parameter(module, 'kernel', initial, shape)
  return module.param('kernel', lambda key: store(initial(key, shape), stacked))


class Conv2D(nn.Module):
  """Convolution of every frame with bias."""

  features: int
  size: int = 3
  stride: int = 1
  padding: Any = 'SAME'
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = kernel_of(self, fan_in_normal(shape), shape, self.out_first)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    y = conv2d(
      x,
      kernel.astype(self.dtype),
      (self.stride, self.stride),
      self.padding,
      self.out_first,
    )
    return y + bias.astype(self.dtype)


def temporal_conv(x, kernel, stride: int, form: str, out_first: bool = False):
  """3-D convolution, valid in time, same in space.

  Args:
    x: `[B, T + kt - 1, H, W, I]`.
    kernel: `[kt, kh, kw, I, O]`.
    stride: stride in time.
    form: `frames` adds one 2-D convolution per kernel frame, `channels`
      stacks the frames into channels of one 2-D convolution, `native` is
      the 3-D convolution of XLA. Equal up to rounding; speed differs.
    out_first: the kernel is `[O, kt, kh, kw, I]`, or with the form `channels`
      `[O, kh, kw, kt, I]`, see `conv.store`.
  """
  stacked = out_first and form == 'channels'
  depth = kernel.shape[3 if stacked else int(out_first)]
  if form == 'native':
    spatial = kernel.shape[2:4] if out_first else kernel.shape[1:3]
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, 1, 1),
      ((0, 0), *[(n // 2, n // 2) for n in spatial]),
      dimension_numbers=(
        'NDHWC',
        'ODHWI' if out_first else 'DHWIO',
        'NDHWC',
      ),
    )
  steps = (x.shape[1] - depth) // stride + 1
  frames = [
    x[:, i : i + (steps - 1) * stride + 1 : stride] for i in range(depth)
  ]
  if form == 'channels':
    if stacked:
      kernel = kernel.reshape(*kernel.shape[:3], -1)
    else:
      kernel = jnp.concatenate(list(kernel), axis=-2)
    x = jnp.concatenate(frames, axis=-1)
    return conv2d(x, kernel, out_first=out_first)
  parts = jnp.moveaxis(kernel, 1, 0) if out_first else kernel
  return sum(
    conv2d(f, k, out_first=out_first)
    for f, k in zip(frames, parts, strict=True)
  )


class CausalConv3D(nn.Module):
  """3-D convolution that sees the present and the past only.

  The state is the last two input frames; before the video they are zero.
  Kernels of one frame are stateless (state `None` in and out).
  """

  features: int
  size: tuple[int, int, int] = (3, 3, 3)
  form: str = 'frames'
  dtype: Any = jnp.float32
  initial: Any = present_only
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    shape = (*self.size, x.shape[-1], self.features)
    stacked = self.form == 'channels'
    kernel = kernel_of(self, self.initial, shape, self.out_first, stacked)
    kernel = kernel.astype(self.dtype)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    if self.size[0] > 1:
      if state is None and x.shape[1] == 1 and not self.out_first:
        # One picture: nothing but zeros lies before it.
        b, _, *rest = x.shape
        y = conv2d(x, kernel[-1])
        past = jnp.zeros((b, 1, *rest), x.dtype)
        return y + bias.astype(self.dtype), jnp.concatenate([past, x], 1)
      if state is None:
        b, _, *rest = x.shape
        state = jnp.zeros((b, _HISTORY, *rest), x.dtype)
      x = jnp.concatenate([state, x], axis=1)
      if self.out_first:
        # The old state has been read before the new one is written, which
        # may then take its place in a donated buffer, without a copy.
        x = jax.lax.optimization_barrier(x)
      state = x[:, -_HISTORY:]
    y = temporal_conv(x, kernel, 1, self.form, self.out_first)
    return y + bias.astype(self.dtype), state


class ResidualBlock(nn.Module):
  """Norm, SiLU, conv, twice; a 1x1x1 shortcut where the width changes."""

  features: int
  form: str = 'frames'
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    first, second = (None, None) if state is None else state
    conv = {
      'form': self.form,
      'dtype': self.dtype,
      'out_first': self.out_first,
    }
    y = nn.silu(RMSNorm(name='residual_0')(x))
    y, first = CausalConv3D(self.features, name='residual_2', **conv)(y, first)
    y = nn.silu(RMSNorm(name='residual_3')(y))
    y, second = CausalConv3D(self.features, name='residual_6', **conv)(
      y, second
    )
    if x.shape[-1] != self.features:
      x, _ = CausalConv3D(self.features, (1, 1, 1), name='shortcut', **conv)(x)
    return x + y, (first, second)


class FrameAttention(nn.Module):
  """One-head self-attention over the positions of each frame."""

  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    b, t, h, w, c = x.shape
    options = {'dtype': self.dtype, 'out_first': self.out_first}
    y = RMSNorm(name='norm')(x)
    y = Conv2D(3 * c, 1, name='to_qkv', **options)(y)
    q, k, v = jnp.split(y.reshape(b * t, h * w, 3 * c), 3, axis=-1)
    scores = jnp.einsum('nqc,nkc->nqk', q, k).astype(jnp.float32) * c**-0.5
    y = jnp.einsum('nqk,nkc->nqc', nn.softmax(scores).astype(v.dtype), v)
    y = y.reshape(b, t, h, w, c)
    return x + Conv2D(c, 1, name='proj', **options)(y), state


class Downsample(nn.Module):
  """Halves height and width, and with `temporal` the frame rate.

  In time the first frame of a video passes unchanged; output frame j >= 1
  is a convolution of input frames 2j-2, 2j-1, 2j. The state is the last
  input frame. A start segment has 1 + 2m frames, a later one 2m.
  """

  temporal: bool
  form: str = 'frames'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    width = x.shape[-1]
    # Upstream pads right and bottom only.
    x = Conv2D(
      width,
      stride=2,
      padding=((0, 1), (0, 1)),
      dtype=self.dtype,
      name='resample_1',
    )(x)
    if not self.temporal:
      return x, None
    shape = (3, 1, 1, width, width)
    conv = _Weights(shape, name='time_conv')
    kernel, bias = (w.astype(self.dtype) for w in conv())
    seen = x if state is None else jnp.concatenate([state, x], axis=1)
    parts = [] if state is not None else [x[:, :1]]
    if seen.shape[1] > 1:
      parts.append(temporal_conv(seen, kernel, 2, self.form) + bias)
    return jnp.concatenate(parts, axis=1), x[:, -1:]


class Upsample(nn.Module):
  """Doubles height and width (to half the channels), with `temporal` also time.

  In time the first frame of a video passes unchanged; every later frame
  becomes two through a causal convolution whose history starts, as zeros,
  *after* that first frame. The state is that history.

  With `folded` enlarging and convolution are one (`conv.fold_upsample`).
  """

  temporal: bool
  form: str = 'frames'
  dtype: Any = jnp.float32
  out_first: bool = False
  folded: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, state: State = None):
    width = x.shape[-1]
    if self.temporal:
      first, later = (
        (x[:, :0], x) if state is not None else (x[:, :1], x[:, 1:])
      )
      time_conv = CausalConv3D(
        2 * width,
        (3, 1, 1),
        self.form,
        self.dtype,
        copy_frame,
        self.out_first,
        name='time_conv',
      )
      # Runs on zero frames too, which gives the state its zeros.
      later, state = time_conv(later, state)
      b, t, h, w, _ = later.shape
      # The first half of the channels is the earlier frame.
      later = later.reshape(b, t, h, w, 2, width)
      later = jnp.moveaxis(later, 4, 2).reshape(b, 2 * t, h, w, width)
      x = jnp.concatenate([first, later], axis=1)
    options = {'dtype': self.dtype, 'out_first': self.out_first}
    if self.folded:
      conv = SubpixelConv2D(width // 2, name='resample_1', **options)
      return conv(x), state
    x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
    return Conv2D(width // 2, name='resample_1', **options)(x), state


class SubpixelConv2D(nn.Module):
  """`conv.subpixel_conv` with bias: doubles height and width."""

  features: int
  dtype: Any = jnp.float32
  out_first: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (2, 2, x.shape[-1], 4 * self.features)
    kernel = kernel_of(self, fan_in_normal(shape), shape, self.out_first)
    bias = parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    y = subpixel_conv(x, kernel.astype(self.dtype), out_first=self.out_first)
    return y[..., 0, :] + bias.astype(self.dtype)


class _Weights(nn.Module):
  """Kernel and bias of a convolution whose use the parent decides."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array]:
    kernel = parameter(self, 'kernel', copy_frame, self.shape)
    bias = parameter(self, 'bias', nn.initializers.zeros, self.shape[-1:])
    return kernel, bias
