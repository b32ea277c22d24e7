"""Stream-K: equal work for every multiprocessor, whatever the shape.

A *tile* is 128 queries of one head. Tiles in whole waves go one to a CTA
(thread block; one per multiprocessor), in step, so that CTAs of one head find
each other's K and V in the L2 cache. The tiles of the last, partial wave are
cut along the keys instead: all their (tile, key block) units are dealt out in
equal contiguous shares, and a second kernel merges the parts of each tile.
Source: Osama et al., Stream-K (PPoPP 2023), its hybrid form.

All functions are arithmetic on traced or concrete int32 that are not
negative; with n key blocks per tile the products stay below 2^31 for
n < 120 000.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax


def _divide(x, y):
  """Quotient and rest; `//` would handle signs, at the cost of more code."""
  x, y = jnp.int32(x), jnp.int32(y)
  if x.shape != y.shape:
    x, y = jnp.broadcast_arrays(x, y)
  return lax.div(x, y), lax.rem(x, y)


@dataclasses.dataclass(frozen=True)
class Shape:
  """Static sizes of the schedule.

  Attributes:
    batch: samples that are attended together.
    heads: attention heads N.
    queries: queries T per head.
    rows: queries per tile.
    ctas: thread blocks, one per multiprocessor.
  """

  batch: int
  heads: int
  queries: int
  rows: int
  ctas: int

  @property
  def tiles_per_head(self) -> int:
    return -(-self.queries // self.rows)

  @property
  def tiles(self) -> int:
    return self.batch * self.heads * self.tiles_per_head

  @property
  def waves(self) -> int:
    """Whole waves."""
    return self.tiles // self.ctas

  @property
  def cut(self) -> int:
    """Tiles of the last wave, which are cut along the keys."""
    return self.tiles % self.ctas

  @property
  def most_parts(self) -> int:
    """Into how many parts a tile can fall."""
    return self.ctas // self.cut + 2 if self.cut else 0

  def place(self, tile):
    """(sample, head, first query) of a tile."""
    head, row = _divide(tile, self.tiles_per_head)
    return *_divide(head, self.heads), row * self.rows

  def share(self, cta, blocks):
    """Units [start, end) of the cut tiles that belong to a CTA."""
    units = self.cut * blocks
    start, _ = _divide(cta * units, self.ctas)
    end, _ = _divide((cta + 1) * units, self.ctas)
    return start, end

  def first_cta(self, cut_tile, blocks):
    """The CTA that has the first unit of a cut tile."""
    last = (cut_tile * blocks + 1) * self.ctas - 1
    return _divide(last, self.cut * blocks)[0]


class Work:
  """What a CTA computes: whole tiles, then at most two parts of cut ones."""

  def __init__(self, shape: Shape, cta, blocks):
    self.shape, self.cta, self.blocks = shape, cta, blocks
    self.items = jnp.int32(shape.waves)
    self.units = shape.waves * blocks
    if shape.cut:
      start, end = shape.share(cta, blocks)
      self.tile = lax.div(start, blocks)
      self.start = start - self.tile * blocks
      self.length = end - start
      two = self.start + self.length > blocks
      self.items += jnp.where(two, 2, jnp.where(self.length > 0, 1, 0))
      self.units += self.length

  def item(self, i):
    """(tile, first block, last block + 1) of the CTA's i-th item."""
    whole = i * self.shape.ctas + self.cta, jnp.int32(0), self.blocks
    if not self.shape.cut:
      return whole
    stop = self.start + self.length
    part = i - self.shape.waves  # 0 or 1.
    first = self.shape.waves * self.shape.ctas + self.tile + part
    low = jnp.where(part == 0, self.start, 0)
    high = lax.min(stop - part * self.blocks, self.blocks)
    if not self.shape.waves:
      return first, low, high
    is_whole = i < self.shape.waves
    return tuple(
      jnp.where(is_whole, a, b)
      for a, b in zip(whole, (first, low, high), strict=True)
    )
