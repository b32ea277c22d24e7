"""Rounding one linear layer's kernel to 8 bits, on the host.

Outliers are met in two ways, both optional. *Smoothing* (SmoothQuant, section
4) moves range from input channels into the kernel: channel k is divided by
`top_x^a / top_w^(1 - a)`. *A branch of low rank* (SVDQuant, section 4.2) keeps
the largest singular directions of the kernel in full precision and leaves the
rest, which has less range, to 8 bits.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxvid.errors import UserError
from jaxvid.ops.quantized import (
  FP8,
  FP8_MAX,
  INT8_MAX,
  MODES,
  QuantizedKernel,
)


@dataclasses.dataclass(frozen=True)
class Scheme:
  """How layers are quantised.

  Attributes:
    mode: `int8` (weights alone), `w8a8` (inputs too) or `fp8` (e4m3, both).
    inputs: scales of 8-bit inputs: `static`, from calibration, or, for w8a8,
      `token`, one for every token when it comes.
    rank: of the branch beside every kernel; 0 = none.
    smoothing: a above; 0 = none.
  """

  mode: Literal['int8', 'w8a8', 'fp8'] = 'int8'
  inputs: Literal['static', 'token'] = 'static'
  rank: int = 0
  smoothing: float = 0.0

  def __post_init__(self):
    if self.mode not in MODES:
      raise UserError(f'no quantisation {self.mode!r}; there are {MODES}')
    if self.inputs not in ('static', 'token'):
      raise UserError(f'inputs must be static or token, not {self.inputs!r}')
    if self.inputs == 'token' and self.mode == 'fp8':
      raise UserError('fp8 wants inputs=static: a scale per token is no faster')
    if self.rank < 0:
      raise UserError(f'rank must be at least 0, not {self.rank}')
    if not 0 <= self.smoothing < 1:
      raise UserError(
        f'smoothing must be from 0 to below 1, not {self.smoothing:g}'
      )

  @property
  def calibrated(self) -> bool:
    """Whether ranges of the inputs are needed."""
    static = self.mode != 'int8' and self.inputs == 'static'
    return static or self.smoothing > 0


def quantize_group(
  kernels: Sequence[np.ndarray], top: np.ndarray | None, scheme: Scheme
) -> list[QuantizedKernel]:
  """Kernels that read one input, hence share what is done to it.

  Args:
    kernels: `[K, N]` each.
    top: largest magnitude of each input channel `[K]`, where calibrated.
    scheme: how.

  Returns:
    One `QuantizedKernel` of numpy arrays for each.
  """
  kernels = [np.asarray(kernel, np.float32) for kernel in kernels]
  gain = None
  if scheme.smoothing:
    weight = np.max([np.abs(kernel).max(1) for kernel in kernels], 0)
    gain = smoothing_gain(top, weight, scheme.smoothing)
    kernels = [kernel / gain[:, None] for kernel in kernels]
    top = top * gain
  pairs = [(None, None)] * len(kernels)
  if scheme.rank:
    pairs = [low_rank(kernel, scheme.rank) for kernel in kernels]
    kernels = [w - d @ u for w, (d, u) in zip(kernels, pairs, strict=True)]
  peak = np.float32(0 if top is None else top.max())
  if scheme.mode == 'fp8':
    # One scale for all, so that they can be joined into one product.
    scale = power_of_two(np.max([np.abs(w).max() for w in kernels]) / FP8_MAX)
    rounded = [((w / scale).T.astype(FP8), scale) for w in kernels]
    input_scale = power_of_two(peak / FP8_MAX)
  else:
    rounded = [round_int8(w) for w in kernels]
    static = scheme.mode == 'w8a8' and scheme.inputs == 'static'
    input_scale = np.float32(max(peak, 1e-12) / INT8_MAX) if static else None
  return [
    QuantizedKernel(values, scale, input_scale, gain, down, up, scheme.mode)
    for (values, scale), (down, up) in zip(rounded, pairs, strict=True)
  ]


def round_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """int8 `[N, K]` and float32 scales `[N]`, one per output feature."""
  top = np.abs(kernel).max(0)
  # Eight significant bits: stored in half the space, and no less exact, since
  # values are rounded to the scale that is kept.
  scale = np.where(top > 0, top / INT8_MAX, 1).astype(jnp.bfloat16)
  scale = scale.astype(np.float32)
  units = np.clip(np.round(kernel / scale), -INT8_MAX, INT8_MAX)
  return np.ascontiguousarray(units.T.astype(np.int8)), scale


def power_of_two(value: float) -> np.ndarray:
  """The least power of two >= value; 1 for 0."""
  exponent = np.ceil(np.log2(value)) if value > 0 else 0.0
  return np.float32(2.0**exponent)


def smoothing_gain(
  top: np.ndarray, weight: np.ndarray, strength: float
) -> np.ndarray:
  """What each input channel is multiplied by, `[K]`, geometric mean 1.

  Args:
    top: largest magnitude of each channel of the input.
    weight: and of the weights that it meets.
    strength: a of SmoothQuant.
  """
  least = 1e-5
  top, weight = np.maximum(top, least), np.maximum(weight, least)
  gain = weight ** (1 - strength) / top**strength
  gain = gain / np.exp(np.mean(np.log(gain)))
  return np.clip(gain, 1e-3, 1e3).astype(np.float32)


def low_rank(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
  """The best `down [K, R] @ up [R, N]`, found by subspace iteration.

  Raises:
    UserError: the rank is not below the sizes of the kernel.
  """
  if rank >= min(kernel.shape):
    raise UserError(
      f'rank {rank} is no less than a kernel has ({min(kernel.shape)})'
    )
  start = np.random.default_rng(0).standard_normal(
    (kernel.shape[1], min(rank + 8, min(kernel.shape))), np.float32
  )
  basis = kernel @ start
  for _ in range(4):
    basis = np.linalg.qr(basis)[0]
    basis = kernel @ (kernel.T @ basis)
  basis = np.linalg.qr(basis)[0]
  left, values, right = np.linalg.svd(basis.T @ kernel, full_matrices=False)
  root = np.sqrt(values[:rank])
  pair = (basis @ left[:, :rank]) * root, right[:rank] * root[:, None]
  # As they are stored; what that rounds away goes to the 8 bits.
  down, up = (x.astype(jnp.bfloat16).astype(np.float32) for x in pair)
  return down, up
