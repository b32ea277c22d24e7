"""Keys and values in several pieces: past, current chunk, retrieved banks.

Softmax does not mind the order of keys, so pieces need not be joined; a
backend that can visit them where they lie saves the copy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.ops.attention import fp8

# Keys that share a scale, where scales differ along the keys.
PAGE = 128


class Segment(NamedTuple):
  """Keys and values that lie together, and which of them count.

  Attributes:
    k: `[B, S, N, D]`.
    v: `[B, S, N, D]`; entries that do not count must still be finite.
    length: only the first so many count: a scalar or `[B]`; None = all S.
    mask: boolean `[G]` or `[B, G]`, which groups of S / G neighbours count
      (G = S: single keys; G = slots of a memory: frames); None = all.
    scale: what to multiply k by where it is stored in e4m3: a scalar, one
      per head `[N]`, or one per head and page `[N, ceil(S / PAGE)]`; None = 1.
  """

  k: jax.Array
  v: jax.Array
  length: jax.Array | None = None
  mask: jax.Array | None = None
  scale: jax.Array | None = None

  def plain(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """k and v of one type; keys in e4m3 are scaled back."""
    k = self.k
    if self.scale is not None:
      factor = fp8.expand(self.scale, k.shape[1], PAGE)
      k = k.astype(jnp.float32) * factor
    return k.astype(dtype), self.v.astype(dtype)

  def keys(self) -> jax.Array | None:
    """Boolean `[S]` or `[B, S]` of keys that count; None = all."""
    size = self.k.shape[1]
    mask = self.mask
    if mask is not None and mask.shape[-1] != size:
      mask = jnp.repeat(mask, size // mask.shape[-1], axis=-1)
    if self.length is not None:
      prefix = jnp.arange(size) < jnp.asarray(self.length)[..., None]
      mask = prefix if mask is None else mask & prefix
    return mask

  def of(self, sample: int) -> 'Segment':
    """What counts of one sample; k and v stay those of all."""

    def pick(x, ndim):
      return x if x is None or jnp.ndim(x) == ndim else x[sample]

    return self._replace(length=pick(self.length, 0), mask=pick(self.mask, 1))


def differ(segments: Sequence[Segment]) -> bool:
  """Whether samples of a batch have different keys that count."""
  return any(
    (s.length is not None and jnp.ndim(s.length) == 1)
    or (s.mask is not None and s.mask.ndim == 2)
    for s in segments
  )


def join(segments: Sequence[Segment]) -> Segment:
  """One segment with the keys of all; its mask is of single keys.

  Several segments take the type of the first one's values.
  """
  if len(segments) == 1:
    return segments[0]._replace(length=None, mask=segments[0].keys())
  pairs = [s.plain(segments[0].v.dtype) for s in segments]
  k, v = (jnp.concatenate(parts, 1) for parts in zip(*pairs, strict=True))
  masks = [s.keys() for s in segments]
  if all(m is None for m in masks):
    return Segment(k, v)
  batch = max(m.shape[0] if m is not None and m.ndim == 2 else 0 for m in masks)
  lead = (batch,) if batch else ()
  full = [
    jnp.broadcast_to(True if m is None else m, (*lead, s.k.shape[1]))
    for m, s in zip(masks, segments, strict=True)
  ]
  return Segment(k, v, None, jnp.concatenate(full, -1))
