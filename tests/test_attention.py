"""Keys in several places, lists of key blocks, shares of work, choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops.attention import Segment, attention, choose, cudnn, fp8
from jaxvid.ops.attention.mosaic.blocks import block_list, most_blocks
from jaxvid.ops.attention.mosaic.merge import parts_of
from jaxvid.ops.attention.mosaic.schedule import Shape, Work


def _draw(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def test_segments_are_attended_as_one():
  """A prefix, frames with holes, and a count per sample, against a loop."""
  q = _draw(0, 2, 5, 1, 4)
  sizes = (6, 8, 3)
  k = [_draw(1 + i, 2, s, 1, 4) for i, s in enumerate(sizes)]
  v = [_draw(9 + i, 2, s, 1, 4) for i, s in enumerate(sizes)]
  more = (
    Segment(k[1], v[1], mask=jnp.array([True, False, False, True])),
    Segment(k[2], v[2], jnp.array([1, 3])),
  )
  keep = [
    [0, 1, 2, 3, 6, 7, 12, 13, 14],
    [0, 1, 2, 3, 6, 7, 12, 13, 14, 15, 16],
  ]
  whole_k, whole_v = jnp.concatenate(k, 1), jnp.concatenate(v, 1)
  for backend in ('reference', 'xla', 'auto'):
    out = attention(
      q, k[0], v[0], length=jnp.int32(4), more=more, backend=backend
    )
    for b in range(2):
      scores = q[b, :, 0] @ whole_k[b, jnp.array(keep[b]), 0].T / 2
      expected = jax.nn.softmax(scores) @ whole_v[b, jnp.array(keep[b]), 0]
      np.testing.assert_allclose(out[b, :, 0], expected, atol=1e-5)


def test_keys_in_8_bits_are_scaled_back():
  q, k, v = _draw(0, 1, 4, 2, 8), _draw(1, 1, 200, 2, 8), _draw(2, 1, 200, 2, 8)
  k = 1e3 * k  # Beyond what e4m3 holds.
  for scale in (fp8.head_scale(k), fp8.page_scale(k, 128)):
    stored = fp8.quantize(k, fp8.expand(scale, 200, 128))
    segment = Segment(stored, v, scale=scale)
    # Off by half a step of 3 bits at most.
    back = segment.plain(jnp.float32)[0]
    np.testing.assert_allclose(back, k, rtol=2**-4, atol=1e3 * 2**-9)
  out = attention(
    q, stored[:, :0], v[:, :0], more=(segment,), backend='reference'
  )
  expected = attention(q, back, v, backend='reference')
  np.testing.assert_allclose(out, expected, atol=1e-5)


CASES = [
  # (keys, length, mask) of each segment; keys per block.
  ([(300, None, None)], 128),
  ([(256, 130, None), (70, 0, None)], 64),
  ([(180, None, '101101'), (100, 70, None)], 64),
  ([(210, 200, '0111'), (90, None, '110')], 64),
  ([(77, None, '0010101')], 64),
]


@pytest.mark.parametrize('case, size', CASES)
def test_blocks_cover_what_counts_once(case, size):
  segments, expected = [], []
  for keys, length, mask in case:
    x = jnp.zeros((1, keys, 1, 1))
    mask = None if mask is None else jnp.array([c == '1' for c in mask])
    if mask is not None:
      keys -= keys % len(mask)
      x = x[:, :keys]
    segments.append(Segment(x, x, length, mask))
    counts = segments[-1].keys()
    expected.append(np.ones(keys, bool) if counts is None else counts)
  blocks = jax.jit(lambda: block_list(segments, size))()
  table, (number, full) = np.asarray(blocks.table), blocks.counts.tolist()
  assert len(table) == most_blocks(segments, size) >= number
  found = [np.zeros(len(e), int) for e in expected]
  for i, (j, row, low, high) in enumerate(table[:number]):
    assert row % 8 == 0 and 0 <= low < high <= size
    assert (high - low == size) == (i < full)
    found[j][row + low : row + high] += 1
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  'queries, heads, ctas, blocks',
  [(4680, 12, 132, 147), (1560, 12, 132, 7), (300, 2, 8, 1), (256, 2, 4, 3)],
)
def test_shares_cover_every_block_of_every_tile_once(
  queries, heads, ctas, blocks
):
  """And the fix-up finds every part of a cut tile, and nothing else."""
  shape = Shape(1, heads, queries, 128, ctas)
  most = shape.waves + 2

  def items(cta):
    work = Work(shape, cta, jnp.int32(blocks))
    number = jnp.arange(most)
    all_items = jax.vmap(lambda i: jnp.stack(work.item(i)))(number)
    return jnp.where((number < work.items)[:, None], all_items, 0), work.units

  listed, units = map(np.asarray, jax.jit(jax.vmap(items))(jnp.arange(ctas)))
  seen = np.zeros((shape.tiles, blocks), int)
  for cta in range(ctas):
    for tile, low, high in listed[cta]:
      seen[tile, low:high] += 1
    assert (listed[cta, :, 2] - listed[cta, :, 1]).sum() == units[cta]
  np.testing.assert_array_equal(seen, 1)
  assert units.max() - units.min() <= 1
  if not shape.cut:
    return
  tile = jnp.arange(shape.cut)[:, None]
  part = jnp.arange(shape.most_parts)[None]
  cta, place, exists = map(
    np.asarray, jax.jit(lambda: parts_of(shape, blocks, tile, part))()
  )
  rows = listed[:, shape.waves :]
  first = shape.waves * ctas
  made = {
    (c, p, int(rows[c, p, 0]) - first)
    for c in range(ctas)
    for p in range(2)
    if rows[c, p, 2] > rows[c, p, 1]
  }
  merged = {
    (int(cta[*i]), int(place[*i]), int(i[0])) for i in np.argwhere(exists)
  }
  assert merged == made


def test_an_unmeasured_gpu_gets_cudnn_and_our_kernel_only_by_name():
  assert choose.choose('NVIDIA H200', 4680, 18720) == ('cudnn', 'xla')
  assert choose.shape_class(4680, 512) == 'text'
  assert choose.shape_class(32760, 32760) == 'clip'
  assert choose.shape_class(16, 64) == 'small'
  assert not any(
    'mosaic' in name for row in choose.TABLE.values() for name in row
  )
  assert choose.gpu_kind() is None  # On a CPU.


def test_what_cudnn_refuses():
  def why(dim=128, dtype=jnp.bfloat16, ranges=None, keys=128):
    q = jax.ShapeDtypeStruct((1, 128, 1, dim), dtype)
    k = jax.ShapeDtypeStruct((1, keys, 1, dim), dtype)
    return cudnn.refuses(q, [Segment(k, k)], ranges)

  assert why() is None
  assert 'not float32' in why(dtype=jnp.float32)
  assert why(dim=40) is None
  assert 'head dim 30' in why(dim=30)
  ranges = np.zeros((1, 128, 2), np.int32)
  assert why(ranges=ranges) is None
  assert 'GiB' in why(ranges=ranges, keys=1 << 24)
  x = jnp.zeros((1, 8, 1, 32))
  with pytest.raises(ValueError, match='use another attention backend'):
    attention(x, x, x, backend='cudnn')


def test_unknown_backend():
  x = jnp.zeros((1, 8, 1, 32))
  with pytest.raises(ValueError, match="'flash'"):
    attention(x, x, x, backend='flash')
