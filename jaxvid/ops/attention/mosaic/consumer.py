"""The computing half of the ring kernel: one warpgroup, 64 queries."""

import dataclasses
import functools
import math

import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import lax

ROWS = 64  # Queries of a warpgroup: the M of a wgmma instruction.
GROUPS = 2  # Warpgroups that compute.
LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Options:
  """How the kernel runs; the result is the same up to rounding.

  Attributes:
    block: keys per block, a multiple of 64.
    stages: K and V blocks in flight.
    ctas: thread blocks, one per multiprocessor; H100 SXM and H200 have 132.
    interpret: run in Mosaic's interpreter on a CPU. It knows neither wgmma
      with an operand in registers nor accumulators that continue, so P then
      goes through shared memory and sums are added outside.
  """

  block: int = 128
  stages: int = 2
  ctas: int = 132
  interpret: bool = False

  def __post_init__(self):
    if self.block % 64 or self.stages < 2 or self.ctas < 1:
      raise ValueError(f'impossible kernel: {self}')


class Consumer:
  """A computing warpgroup."""

  def __init__(
    self, q, table, counts, scales, outs, smem, shape, options, group, sample
  ):
    self.q, self.table, self.scales = q, table, scales
    self.full = counts[1]
    self.outs, self.smem, self.shape = outs, smem, shape
    self.options, self.group, self.sample = options, group, sample
    self.q_smem = smem['q_smem'].at[group]
    self.o_smem = smem.get('o_smem', smem['q_smem']).at[group]
    self.dim = q.shape[-1]
    self.dtype = outs[0].dtype

  def run(self, work):
    """All items of the CTA."""

    @pl.when(work.units > 0)
    def _():
      plgpu.barrier_wait(self.smem['k_here'].at[0])

    # The second group starts half a step after the first.
    pl.when(self.group == 1)(self._turn)
    lax.fori_loop(
      0, work.items, functools.partial(self._item, work), jnp.int32(0)
    )
    pl.when(self.group == 0)(self._turn)

  def _slot(self, unit):
    return lax.rem(unit, jnp.int32(self.options.stages))

  def _turn(self):
    plgpu.barrier_arrive(self.smem['turn'])
    plgpu.barrier_wait(self.smem['turn'])

  def _item(self, work, i, unit):
    tile, low, high = work.item(i)
    b, h, row = self.shape.place(tile)
    row = pl.multiple_of(row + self.group * ROWS, ROWS)
    source = b if self.sample is None else self.sample
    plgpu.copy_gmem_to_smem(
      self.q.at[source, pl.ds(row, ROWS), h],
      self.q_smem,
      self.smem['q_here'].at[self.group],
    )
    plgpu.barrier_wait(self.smem['q_here'].at[self.group])

    rows = plgpu.Layout.WGMMA.reduce(1)
    carry = (
      plgpu.layout_cast(
        jnp.zeros((ROWS, self.dim), jnp.float32), plgpu.Layout.WGMMA
      ),
      plgpu.layout_cast(jnp.full((ROWS,), -jnp.inf, jnp.float32), rows),
      plgpu.layout_cast(jnp.zeros((ROWS,), jnp.float32), rows),
    )
    middle = lax.max(low, lax.min(self.full, high))
    step = functools.partial(
      self._step,
      shift=unit - low,
      units=work.units,
      scale_of=None if self.scales is None else self.scales.at[h],
    )
    carry = lax.fori_loop(
      low, middle, functools.partial(step, masked=False), carry
    )
    carry = lax.fori_loop(
      middle, high, functools.partial(step, masked=True), carry
    )
    self._finish(carry, i, work, (b, h, row))
    return unit + high - low

  def _step(self, i, carry, *, masked, shift, units, scale_of):
    """Block i of the list; its number among the CTA's units is i + shift."""
    acc, top, norm = carry
    unit = i + shift
    slot = self._slot(unit)
    scale = self.dim**-0.5 * LOG2_E
    if scale_of is not None:
      scale = scale * scale_of[i]

    def scores(ref):
      k = self.smem['k_smem'].at[slot].transpose((1, 0))
      plgpu.wgmma(ref, self.q_smem, k)
      self._turn()
      return ref[...]

    size = (ROWS, self.options.block)
    s = pl.run_scoped(scores, plgpu.WGMMAAccumulatorRef(size, jnp.float32))
    plgpu.barrier_arrive(self.smem['k_done'].at[slot])
    if masked:
      column = plgpu.broadcasted_iota(
        jnp.int32, size, 1, layout=plgpu.Layout.WGMMA
      )
      counts = (column >= self.table[i, 2]) & (column < self.table[i, 3])
      s = jnp.where(counts, s, -jnp.inf)

    # Everything in units of log2, so that one FMA and one exp2 make p.
    new = jnp.maximum(top, s.max(axis=1) * scale)
    shrink = jnp.exp2(top - new)
    p = jnp.exp2(s * scale - lax.broadcast_in_dim(new, size, [0]))
    acc = acc * lax.broadcast_in_dim(shrink, acc.shape, [0])
    norm = norm * shrink + p.sum(axis=1)
    weights = p.astype(self.dtype)
    if not self.options.interpret:
      acc, norm, new, weights = lax.optimization_barrier(
        (acc, norm, new, weights)
      )
    plgpu.barrier_arrive(self.smem['turn'])
    plgpu.barrier_wait(self.smem['v_here'].at[slot])
    plgpu.barrier_wait(self.smem['turn'])

    def wait_for_next():
      @pl.when(unit + 1 < units)
      def _():
        plgpu.barrier_wait(self.smem['k_here'].at[self._slot(unit + 1)])

    acc = self._add_values(acc, weights, slot, wait_for_next)
    plgpu.barrier_arrive(self.smem['v_done'].at[slot])
    return acc, new, norm

  def _add_values(self, acc, weights, slot, meanwhile):
    v = self.smem['v_smem'].at[slot]
    if self.options.interpret:
      p_smem = self.smem['p_smem'].at[self.group]
      p_smem[...] = weights
      plgpu.commit_smem()

      def product(ref):
        plgpu.wgmma(ref, p_smem, v)
        return ref[...]

      acc = acc + pl.run_scoped(
        product, plgpu.WGMMAAccumulatorRef(acc.shape, jnp.float32)
      )
      meanwhile()
      return acc

    def add(ref):
      plgpu.wgmma(ref, weights, v)
      meanwhile()

    return pl.run_state(add)(plgpu.WGMMAAccumulatorRef.init(acc))

  def _finish(self, carry, i, work, place):
    acc, top, norm = carry
    b, h, row = place
    out = acc / lax.broadcast_in_dim(norm, acc.shape, [0])
    waves = self.shape.waves

    def whole():
      self.o_smem[...] = out.astype(self.dtype)
      plgpu.commit_smem()
      target = self.outs[0].at[b, pl.ds(row, ROWS), h]
      plgpu.copy_smem_to_gmem(self.o_smem, target)
      plgpu.wait_smem_to_gmem(0)

    def part():
      rows = pl.ds(self.group * ROWS, ROWS)
      self.outs[1].at[work.cta, i - waves, rows][...] = out
      self.outs[2].at[work.cta, i - waves, rows][...] = top + jnp.log2(norm)

    if not self.shape.cut:
      whole()
    elif not waves:
      part()
    else:
      pl.when(i < waves)(whole)
      pl.when(i >= waves)(part)
