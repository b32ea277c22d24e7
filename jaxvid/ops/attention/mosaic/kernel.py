"""`ring_attention`: attention over listed key blocks, for Hopper GPUs.

A persistent kernel in the manner of FlashAttention-3, in Pallas Mosaic GPU:
two warpgroups compute, 64 queries each, taking turns on the tensor cores; a
third one feeds them K and V by TMA. Which blocks of which segments are
visited says a table (`blocks.py`), who computes what the stream-K schedule
(`schedule.py`). Q K^T runs in bf16 or, where q and k come in e4m3, in fp8;
the softmax in float32; P V in bf16.

Sources: Shah et al., FlashAttention-3 (2024); the forward kernel that ships
with jax (`pallas/ops/gpu/attention_mgpu.py`).
"""

# Transforms of the kernel language look abstract to a type checker.
# pyright: reportAbstractUsage=false

import functools
from collections.abc import Sequence

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.attention.mosaic.blocks import ALIGN, Blocks
from jaxvid.ops.attention.mosaic.consumer import GROUPS, ROWS, Consumer, Options
from jaxvid.ops.attention.mosaic.schedule import Shape, Work

DEFAULT = Options()


def ring_attention(
  q: jax.Array,
  keys: Sequence[jax.Array],
  values: Sequence[jax.Array],
  blocks: Blocks,
  scales: jax.Array | None = None,
  *,
  sample: int | None = None,
  options: Options = DEFAULT,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
  """Attention; cut tiles come back in parts (see `merge.py`).

  Args:
    q: queries `[B, T, N, D]`, bf16 or e4m3; D is 64 or 128.
    keys: of every segment, `[B, S_j, N, D]` in the type of q.
    values: of every segment, `[B, S_j, N, D]`, bf16.
    blocks: what to visit, at least one block; `options.block` keys each.
    scales: float32 `[N, M]`, what to multiply the products of q and the M
      listed blocks by; None = 1. The factor D ** -0.5 comes on top.
    sample: attend for this sample alone (lists differ between samples).
    options: see there.

  Returns:
    out: `[B or 1, T, N, D]` bf16, the rows of cut tiles undefined.
    parts: float32 `[ctas, 2, 128, D]`, attention over part of the keys.
    sums: float32 `[ctas, 2, 128]`, log2 of the softmax's denominators.
    The last two are None where no tile is cut.
  """
  _, queries, heads, dim = q.shape
  shape = schedule(q, sample, options)
  dtype = values[0].dtype
  out = [jax.ShapeDtypeStruct((shape.batch, queries, heads, dim), dtype)]
  if shape.cut:
    parts = (options.ctas, 2, shape.rows)
    out.append(jax.ShapeDtypeStruct((*parts, dim), jnp.float32))
    out.append(jax.ShapeDtypeStruct(parts, jnp.float32))
  inputs = [q, *keys, *values, blocks.table, blocks.counts]
  if scales is not None:
    inputs.append(scales.astype(jnp.float32))
  body = functools.partial(
    _kernel,
    shape=shape,
    options=options,
    segments=len(keys),
    scaled=scales is not None,
    sample=sample,
  )
  results = plgpu.kernel(
    body,
    out_type=out,
    scratch_types=_scratch(q.dtype, dtype, dim, options),
    grid=(options.ctas,),
    grid_names=('cta',),
    num_threads=GROUPS + 1,
    thread_name='wg',
    kernel_name='ring_attention',
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=plgpu.InterpretGPUParams() if options.interpret else None,
  )(*inputs)
  return tuple(results) if shape.cut else (results[0], None, None)


def schedule(q: jax.Array, sample: int | None, options: Options) -> Shape:
  """Schedule of the call."""
  batch, queries, heads, _ = q.shape
  batch = batch if sample is None else 1
  return Shape(batch, heads, queries, GROUPS * ROWS, options.ctas)


def _tiles(dtype):
  """Tiling and swizzle of 128 bytes that wgmma and TMA agree on."""
  lanes = 128 // jnp.dtype(dtype).itemsize
  return plgpu.TilingTransform((8, lanes)), plgpu.SwizzleTransform(128)


def _scratch(in_type, out_type, dim, options):
  def smem(shape, dtype):
    swizzle = 128 // jnp.dtype(dtype).itemsize
    if shape[-1] % swizzle:  # A row of 64 e4m3 is only 64 bytes long.
      transforms = (
        plgpu.TilingTransform((8, shape[-1])),
        plgpu.SwizzleTransform(shape[-1] * jnp.dtype(dtype).itemsize),
      )
      return plgpu.SMEM(shape, dtype, transforms=transforms)
    return plgpu.SMEM(shape, dtype, transforms=_tiles(dtype))

  stages, block = options.stages, options.block
  scratch = {
    'q_smem': smem((GROUPS, ROWS, dim), in_type),
    'k_smem': smem((stages, block, dim), in_type),
    'v_smem': smem((stages, block, dim), out_type),
    'q_here': plgpu.Barrier(num_barriers=GROUPS),
    'k_here': plgpu.Barrier(num_barriers=stages),
    'v_here': plgpu.Barrier(num_barriers=stages),
    'k_done': plgpu.Barrier(num_arrivals=GROUPS, num_barriers=stages),
    'v_done': plgpu.Barrier(num_arrivals=GROUPS, num_barriers=stages),
    'turn': plgpu.Barrier(num_arrivals=GROUPS),
  }
  if in_type != out_type:
    scratch['o_smem'] = smem((GROUPS, ROWS, dim), out_type)
  if options.interpret:
    scratch['p_smem'] = smem((GROUPS, ROWS, block), out_type)
  return scratch


def _kernel(*refs, shape, options, segments, scaled, sample, **smem):
  """One CTA; `refs` are inputs, then outputs, `smem` what `_scratch` names."""
  refs = list(refs)

  def take(count):
    taken, refs[:count] = refs[:count], []
    return taken

  (q_ref,) = take(1)
  k_refs, v_refs = take(segments), take(segments)
  table, counts = take(2)
  scales = take(1)[0] if scaled else None
  cta, group = lax.axis_index('cta'), lax.axis_index('wg')
  total = counts[0]
  work = Work(shape, cta, total)

  @pl.when(group < GROUPS)
  def _():
    plgpu.set_max_registers(232, action='increase')
    consumer = Consumer(
      q_ref, table, counts, scales, refs, smem, shape, options, group, sample
    )
    consumer.run(work)

  @pl.when(group == GROUPS)
  def _():
    plgpu.set_max_registers(40, action='decrease')
    _produce(work, k_refs, v_refs, table, smem, shape, options, sample)


def _produce(work, k_refs, v_refs, table, smem, shape, options, sample):
  """The feeding warpgroup: K and V of all items, in order."""
  stages = jnp.int32(options.stages)

  def copy(refs, to, here, done, index, slot, unit):
    segment, row, (b, h) = index

    @pl.when(unit >= stages)
    def _():
      plgpu.barrier_wait(smem[done].at[slot])

    for j, ref in enumerate(refs):

      def load(ref=ref):
        part = ref.at[b, pl.ds(row, options.block), h]
        plgpu.copy_gmem_to_smem(part, smem[to].at[slot], smem[here].at[slot])

      if len(refs) == 1:
        load()
      else:
        pl.when(segment == j)(load)

  def item(i, unit):
    tile, low, high = work.item(i)
    b, h, _ = shape.place(tile)
    b = b if sample is None else sample

    def block(i, unit):
      slot = lax.rem(unit, stages)
      index = table[i, 0], pl.multiple_of(table[i, 1], ALIGN), (b, h)
      copy(k_refs, 'k_smem', 'k_here', 'k_done', index, slot, unit)
      copy(v_refs, 'v_smem', 'v_here', 'v_done', index, slot, unit)
      return unit + 1

    return lax.fori_loop(low, high, block, unit)

  lax.fori_loop(0, work.items, item, jnp.int32(0))

  # Every phase of a barrier must have been seen before the kernel ends.
  def drain(unit, carry):
    slot = lax.rem(unit, stages)
    plgpu.barrier_wait(smem['k_done'].at[slot])
    plgpu.barrier_wait(smem['v_done'].at[slot])
    return carry

  lax.fori_loop(lax.max(work.units - stages, 0), work.units, drain, None)
