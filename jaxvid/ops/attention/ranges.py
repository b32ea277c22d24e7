"""Attention masks as ranges of keys instead of T x S booleans.

A mask is an int32 array `[R, T, 2]`: query t may attend key s when
`start <= s < end` for any of its R ranges. Two ranges are enough for every
block-causal pattern in the library.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def ranges_mask(ranges: jax.Array, keys: int) -> jax.Array:
  """Expands ranges `[R, T, 2]` to a boolean mask `[T, S]`."""
  s = jnp.arange(keys)
  inside = (s >= ranges[..., :1]) & (s < ranges[..., 1:])
  return inside.any(0)


class Visible(NamedTuple):
  """Which keys each query may attend; not written out until needed.

  Attributes:
    keys: boolean `[S]`, or `[B, S]` where samples differ: keys that anybody
      may attend; None = all.
    ranges: int32 `[R, T, 2]`; None = no further limit.
  """

  keys: jax.Array | None
  ranges: jax.Array | None

  def mask(self, keys: int) -> jax.Array | None:
    """Boolean `[B or 1, 1, T or 1, S]` of S keys; None = attend all."""
    mask = None
    if self.keys is not None:
      mask = jnp.atleast_2d(self.keys)[:, None, None]
    if self.ranges is None:
      return mask
    inside = ranges_mask(self.ranges, keys)[None, None]
    return inside if mask is None else mask & inside


def block_causal(frames: int, chunk: int, tokens: int) -> np.ndarray:
  """Each chunk sees itself and every earlier chunk.

  Args:
    frames: latent frames F of the clip; the last chunk may be shorter.
    chunk: latent frames per chunk.
    tokens: tokens per latent frame.

  Returns:
    Ranges `[1, F * tokens, 2]`.
  """
  frame = np.repeat(np.arange(frames), tokens)
  end = np.minimum((frame // chunk + 1) * chunk, frames) * tokens
  return np.stack([np.zeros_like(end), end], -1)[None].astype(np.int32)


def teacher_forcing(frames: int, chunk: int, tokens: int) -> np.ndarray:
  """Mask for a sequence `[clean clip | noisy clip]` of 2 F frames.

  A clean chunk sees clean chunks up to itself. A noisy chunk sees the clean
  chunks before it and itself, so that every chunk is denoised against a
  clean history in one pass (CausVid, Self-Forcing).

  Returns:
    Ranges `[2, 2 * F * tokens, 2]`.
  """
  frame = np.repeat(np.arange(frames), tokens)
  start = frame // chunk * chunk * tokens
  end = np.minimum((frame // chunk + 1) * chunk, frames) * tokens
  zero, length = np.zeros_like(start), frames * tokens
  history = np.stack(
    [np.concatenate([zero, zero]), np.concatenate([end, start])], -1
  )
  own = np.stack(
    [
      np.concatenate([zero, length + start]),
      np.concatenate([zero, length + end]),
    ],
    -1,
  )
  return np.stack([history, own]).astype(np.int32)
