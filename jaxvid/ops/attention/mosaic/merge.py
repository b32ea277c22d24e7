"""Fix-up of the stream-K schedule: parts of a tile become its result."""

# Transforms of the kernel language look abstract to a type checker.
# pyright: reportAbstractUsage=false

import functools

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.attention.mosaic.consumer import ROWS, Options
from jaxvid.ops.attention.mosaic.schedule import Shape


def parts_of(shape: Shape, blocks, cut_tile, number):
  """Where the parts of a cut tile lie.

  Args:
    shape: the schedule.
    blocks: key blocks of a tile, a scalar.
    cut_tile: which of the cut tiles.
    number: which of its parts, below `shape.most_parts`.

  Returns:
    (cta, place among that CTA's parts, whether there is such a part).
  """
  cta = shape.first_cta(cut_tile, blocks) + number
  safe = jnp.minimum(cta, shape.ctas - 1)
  start, end = shape.share(safe, blocks)
  begins, ends = cut_tile * blocks, (cut_tile + 1) * blocks
  exists = (cta < shape.ctas) & (start < ends) & (end > begins) & (end > start)
  return safe, jnp.where(start < begins, 1, 0), exists


def merge_reference(
  out: jax.Array,
  parts: jax.Array,
  sums: jax.Array,
  blocks: jax.Array,
  shape: Shape,
) -> jax.Array:
  """`out` with the rows of cut tiles filled in; plain array operations.

  Args:
    out, parts, sums: from `ring_attention`.
    blocks: key blocks per tile, a scalar.
    shape: its schedule.
  """
  tile = jnp.arange(shape.cut)[:, None]
  number = jnp.arange(shape.most_parts)[None]
  cta, place, exists = parts_of(shape, blocks, tile, number)
  level = jnp.where(exists[..., None], sums[cta, place], -jnp.inf)
  weights = jax.nn.softmax(level * jnp.log(2.0), axis=1)
  pieces = jnp.where(exists[..., None, None], parts[cta, place], 0.0)
  tiles = jnp.sum(weights[..., None] * pieces, axis=1).astype(out.dtype)
  b, h, row = shape.place(shape.waves * shape.ctas + tile)
  rows = row + jnp.arange(shape.rows)
  return out.at[b, rows, h].set(tiles, mode='drop')


def merge(
  out: jax.Array,
  parts: jax.Array,
  sums: jax.Array,
  counts: jax.Array,
  shape: Shape,
  options: Options,
) -> jax.Array:
  """As `merge_reference`, one kernel that writes into `out` in place.

  Args:
    out, parts, sums: from `ring_attention`.
    counts: of the list of blocks.
    shape: its schedule.
    options: as given to it.
  """
  mesh = plgpu.Mesh(
    grid=(shape.cut, shape.rows // ROWS),
    grid_names=('tile', 'half'),
    num_threads=1,
    thread_name='wg',
    kernel_name='merge_parts',
  )
  interpret = plgpu.InterpretGPUParams() if options.interpret else False
  body = functools.partial(merge_parts, shape=shape)
  # As a reference, so that the kernel writes in place.
  target = jax.new_ref(out)
  run = pl.kernel(body, mesh=mesh, name='merge_parts', interpret=interpret)
  run(parts, sums, counts, target)  # pyright: ignore[reportCallIssue]
  return target[...]


def merge_parts(part_ref, sum_ref, count_ref, o_ref, *, shape):
  cut_tile, half = lax.axis_index('tile'), lax.axis_index('half')
  rows = pl.ds(half * ROWS, ROWS)
  dim = o_ref.shape[-1]
  blocks = count_ref[0]
  layout = plgpu.Layout.WGMMA
  cta0, place0, _ = parts_of(shape, blocks, cut_tile, 0)

  def add(number, carry):
    acc, top, norm = carry
    cta, place, exists = parts_of(shape, blocks, cut_tile, number)
    # In the place of one that does not exist: the first, with weight 0.
    cta, place = jnp.where(exists, cta, cta0), jnp.where(exists, place, place0)
    absent = jnp.where(exists, 0.0, -1e30)
    part = plgpu.load(
      part_ref.at[cta, place, rows], layout=layout, optimized=False
    )
    level = plgpu.load(
      sum_ref.at[cta, place, rows], layout=layout.reduce(1), optimized=False
    )
    level = level + absent
    new = jnp.maximum(top, level)
    shrink = jnp.exp2(top - new)
    weight = jnp.exp2(level - new)
    wide = functools.partial(
      lax.broadcast_in_dim, shape=acc.shape, broadcast_dimensions=[0]
    )
    acc = acc * wide(shrink) + part * wide(weight)
    return acc, new, norm * shrink + weight

  def zeros(size, value, layout):
    return plgpu.layout_cast(jnp.full(size, value, jnp.float32), layout)

  carry = (
    zeros((ROWS, dim), 0.0, layout),
    # Not -inf, whose difference with itself is not a number.
    zeros((ROWS,), -1e30, layout.reduce(1)),
    zeros((ROWS,), 0.0, layout.reduce(1)),
  )
  acc, _, norm = lax.fori_loop(0, shape.most_parts, add, carry)
  out = acc / lax.broadcast_in_dim(norm, acc.shape, [0])
  b, h, row = shape.place(shape.waves * shape.ctas + cut_tile)

  def store(smem):
    smem[...] = out.astype(smem.dtype)
    plgpu.commit_smem()
    target = o_ref.at[b, pl.ds(row + half * ROWS, ROWS), h]
    plgpu.copy_smem_to_gmem(smem, target)
    plgpu.wait_smem_to_gmem(0)

  tiles = plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)
  pl.run_scoped(
    store,
    plgpu.SMEM((ROWS, dim), o_ref.dtype, transforms=tiles),
    collective_axes='wg',
  )
