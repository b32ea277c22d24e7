"""The ring kernel as an attention backend."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvid.ops.attention import fp8
from jaxvid.ops.attention.mosaic.blocks import ALIGN, Blocks, block_list
from jaxvid.ops.attention.mosaic.consumer import Options
from jaxvid.ops.attention.mosaic.kernel import (
  DEFAULT,
  ring_attention,
  schedule,
)
from jaxvid.ops.attention.mosaic.merge import merge
from jaxvid.ops.attention.segments import PAGE, Segment, differ


def refuses(
  q: jax.Array, segments: Sequence[Segment], ranges: jax.Array | None
) -> str | None:
  """Why the kernel cannot do this; None if it can."""
  if ranges is not None:
    return 'the ring kernel attends the same keys for all queries'
  if q.shape[-1] not in (64, 128):
    return f'the ring kernel knows head dims 64 and 128, not {q.shape[-1]}'
  if q.dtype != jnp.bfloat16:
    return f'the ring kernel takes queries in bfloat16, not {q.dtype}'
  for s in segments:
    if s.v.dtype != jnp.bfloat16 or s.k.dtype not in (jnp.bfloat16, fp8.E4M3):
      return (
        'the ring kernel takes values in bfloat16 and keys in bfloat16 or '
        f'float8_e4m3fn, not {s.v.dtype} and {s.k.dtype}'
      )
  return None


def attention(
  q: jax.Array,
  segments: Sequence[Segment],
  ranges: jax.Array | None = None,
  *,
  quantized: bool = False,
  q_scale: jax.Array | float = 1.0,
  options: Options | None = None,
) -> jax.Array:
  """As `reference.attention`, for GPUs of the Hopper kind; no derivative.

  Args:
    q: `[B, T, N, D]`, bfloat16, D 64 or 128.
    segments: keys and values; at least one key must count. Numbers of rows
      that are no multiple of 8 cost a copy. Keys in bfloat16 or e4m3; with
      any in e4m3 the others are cast. Scales per page need keys that count
      from multiples of `PAGE` on.
    ranges: None.
    quantized: Q K^T in fp8, also where keys come in bfloat16.
    q_scale: what queries are divided by before they become e4m3: a scalar,
      or `[N]`.
    options: of the kernel.

  Returns:
    `[B, T, N, D]` bfloat16.

  Raises:
    ValueError: the kernel cannot do this.
  """
  reason = refuses(q, segments, ranges)
  if reason:
    raise ValueError(f'{reason}; use another attention backend')
  options = options or Options(ctas=_multiprocessors())
  quantized = quantized or any(s.k.dtype == fp8.E4M3 for s in segments)
  if quantized:
    q = fp8.quantize(q, jnp.reshape(jnp.asarray(q_scale), (-1, 1)))
    segments = [
      s if s.k.dtype == fp8.E4M3 else s._replace(k=fp8.quantize(s.k))
      for s in segments
    ]
  if not differ(segments):
    return _attend(q, segments, q_scale, None, options)
  out = [
    _attend(q, [s.of(i) for s in segments], q_scale, i, options)
    for i in range(q.shape[0])
  ]
  return jnp.concatenate(out)


def _attend(q, segments, q_scale, sample, options):
  blocks = block_list(segments, options.block)
  scales = None
  if q.dtype == fp8.E4M3:
    scales = _scales(segments, blocks, q_scale, q.shape[2], options.block)
  return attend_blocks(
    q,
    [s.k for s in segments],
    [s.v for s in segments],
    blocks,
    scales,
    sample=sample,
    options=options,
  )


def attend_blocks(
  q: jax.Array,
  keys: Sequence[jax.Array],
  values: Sequence[jax.Array],
  blocks: Blocks,
  scales: jax.Array | None = None,
  *,
  sample: int | None = None,
  options: Options = DEFAULT,
) -> jax.Array:
  """Attention over listed blocks: `ring_attention` with its fix-up.

  Args: as in `ring_attention`; for a ring with pages in any order make the
    list by `table_blocks`.

  Returns:
    `[B or 1, T, N, D]` bfloat16.
  """
  queries = q.shape[1]
  q = _whole_rows(q)
  keys, values = map(_whole_rows, keys), map(_whole_rows, values)
  out, parts, sums = ring_attention(
    q, [*keys], [*values], blocks, scales, sample=sample, options=options
  )
  if parts is not None:
    shape = schedule(q, sample, options)
    out = merge(out, parts, sums, blocks.counts, shape, options)
  return out[:, :queries]


def _whole_rows(x):
  """TMA takes rows in eights: others are padded, which copies."""
  return jnp.pad(x, ((0, 0), (0, -x.shape[1] % ALIGN), (0, 0), (0, 0)))


def _scales(segments, blocks, q_scale, heads, size):
  """float32 `[N, M]`: factor of the products with each listed block."""
  columns, first, pages = [], [], []
  for s in segments:
    scale = jnp.asarray(1.0 if s.scale is None else s.scale, jnp.float32)
    paged = scale.ndim == 2
    if paged and (size != PAGE or not _on_pages(s)):
      raise ValueError(
        f'scales per page need blocks of {PAGE} keys, and keys that count '
        f'from multiples of {PAGE} on'
      )
    scale = scale if paged else jnp.reshape(scale, (-1, 1))
    first.append(sum(c.shape[1] for c in columns))
    columns.append(jnp.broadcast_to(scale, (heads, scale.shape[1])))
    pages.append(int(paged))
  table = jnp.concatenate(columns, 1)
  owner = blocks.table[:, 0]
  page = jnp.asarray(pages)[owner] * (blocks.table[:, 1] // PAGE)
  scales = table[:, jnp.asarray(first)[owner] + page]
  return scales * jnp.reshape(jnp.asarray(q_scale, jnp.float32), (-1, 1))


def _on_pages(segment):
  mask = segment.mask
  return mask is None or (segment.k.shape[1] // mask.shape[-1]) % PAGE == 0


def _multiprocessors() -> int:
  """Of the GPU at hand; those of an H100 SXM or H200 where there is none."""
  device = jax.devices()[0]
  return getattr(device, 'core_count', None) or DEFAULT.ctas
