"""The list of key blocks that a kernel visits.

Keys that count are runs of neighbours. A run is cut into blocks from its
start, or from the multiple of 8 before it; so its first and last block may be
partial. Full blocks come first in the list, so that a kernel masks in a
second loop only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.ops.attention.segments import Segment

ALIGN = 8  # TMA fetches rows in tiles of 8.


class Blocks(NamedTuple):
  """Key blocks in the order of their visit.

  Attributes:
    table: int32 `[M, 4]`: segment; first key; of the block's keys, those in
      [low, high) count: low, high. Rows from `counts[0]` on mean nothing.
    counts: int32 `[2]`: blocks in the list, and full ones among them.
  """

  table: jax.Array
  counts: jax.Array


def block_list(segments: Sequence[Segment], size: int) -> Blocks:
  """Blocks of `size` keys that cover what counts in all segments.

  The lengths and masks must be the same for all samples (`Segment.of`).
  """
  runs = [_runs(segment) for segment in segments]
  start = jnp.concatenate([r[0] for r in runs])
  length = jnp.concatenate([r[1] for r in runs])
  owner = jnp.concatenate(
    [jnp.full(r[0].shape, i, jnp.int32) for i, r in enumerate(runs)]
  )
  return _list(owner, start, length, size, _most_full(segments, size))


def table_blocks(table: jax.Array, count: jax.Array, tail, size: int) -> Blocks:
  """Blocks of a paged buffer: physical pages in logical order.

  Args:
    table: int32 `[M]`, physical page of each logical page.
    count: logical pages in use, a scalar, at least 1.
    tail: how many keys of the last page in use count, 1 to `size`.
    size: keys per page, and per block.
  """
  table = jnp.asarray(table, jnp.int32)
  last = jnp.arange(table.shape[0]) == count - 1
  valid = jnp.where(last, tail, size).astype(jnp.int32)
  zero = jnp.zeros_like(table)
  rows = jnp.stack([zero, table * size, zero, valid], -1)
  count = jnp.asarray(count, jnp.int32)
  full = count - (jnp.asarray(tail) < size)
  return Blocks(rows, jnp.stack([count, full.astype(jnp.int32)]))


def most_blocks(segments: Sequence[Segment], size: int) -> int:
  """Length M of the table."""
  runs = sum(_most_runs(s) for s in segments)
  return _most_full(segments, size) + 2 * runs


def _most_full(segments, size):
  return sum(s.k.shape[1] // size for s in segments)


def _most_runs(segment):
  return 1 if segment.mask is None else (segment.mask.shape[-1] + 1) // 2


def _runs(segment: Segment) -> tuple[jax.Array, jax.Array]:
  """First key and length of every run, int32 `[R]` each; length 0 = none."""
  size = segment.k.shape[1]
  end = jnp.asarray(
    size if segment.length is None else segment.length, jnp.int32
  )
  if segment.mask is None:
    return jnp.zeros(1, jnp.int32), jnp.clip(end, 0, size)[None]
  mask = segment.mask
  group = size // mask.shape[-1]
  most = _most_runs(segment)
  before = jnp.pad(mask[:-1], (1, 0))
  after = jnp.pad(mask[1:], (0, 1))
  none = mask.shape[-1]
  first = jnp.nonzero(mask & ~before, size=most, fill_value=none)[0]
  last = jnp.nonzero(mask & ~after, size=most, fill_value=none - 1)[0]
  start = first.astype(jnp.int32) * group
  stop = jnp.minimum((last.astype(jnp.int32) + 1) * group, end)
  return start, jnp.maximum(stop - start, 0)


def _list(owner, start, length, size, most_full) -> Blocks:
  first = start - start % ALIGN
  span = jnp.where(length > 0, start + length - first, 0)
  head = ((start != first) & (length > 0)).astype(jnp.int32)
  full = jnp.maximum(span // size - head, 0)
  ends = jnp.cumsum(full)
  number = ends[-1]
  index = jnp.arange(most_full, dtype=jnp.int32)
  run = jnp.searchsorted(ends, index, side='right', method='compare_all')
  run = jnp.minimum(run, start.shape[0] - 1)
  offset = index - (ends - full - head)[run]
  size_of = jnp.full_like(index, size)
  whole = jnp.stack(
    [owner[run], first[run] + offset * size, 0 * index, size_of], -1
  )
  # At most two blocks of a run are partial: the first and the last.
  low = start - first
  heads = jnp.stack([owner, first, low, jnp.minimum(span, size)], -1)
  rest = span % size
  tails = jnp.stack([owner, first + span - rest, 0 * rest, rest], -1)
  has_tail = (rest > 0) & ((head == 0) | (span > size))
  part = jnp.concatenate([heads, tails])
  has = jnp.concatenate([head > 0, has_tail])
  part = part[jnp.argsort(~has, stable=True)]
  # Partial blocks follow the last full one.
  both = jnp.concatenate([whole, part])
  slot = jnp.arange(both.shape[0])
  index = jnp.where(slot < number, slot, slot - number + most_full)
  table = both[jnp.minimum(index, both.shape[0] - 1)]
  counts = jnp.stack([number + jnp.sum(has), number]).astype(jnp.int32)
  return Blocks(table.astype(jnp.int32), counts)
