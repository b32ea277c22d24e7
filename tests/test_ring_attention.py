"""The ring kernel in Mosaic's interpreter, which also watches for races."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops.attention import Segment, reference
from jaxvid.ops.attention.fp8 import page_scale, quantize
from jaxvid.ops.attention.mosaic import attention as mosaic
from jaxvid.ops.attention.mosaic.blocks import table_blocks
from jaxvid.ops.attention.mosaic.consumer import Options
from jaxvid.ops.attention.mosaic.kernel import ring_attention, schedule
from jaxvid.ops.attention.mosaic.merge import merge_reference
from jaxvid.ops.attention.ranges import Visible
from jaxvid.ops.attention.segments import join

DIM = 64
# Rounding of bfloat16, relative to the largest output.
GATE = 2.0**-8


def _draw(seed, *shape):
  x = jax.random.normal(jax.random.key(seed), (*shape, DIM))
  return x.astype(jnp.bfloat16)


def _options(ctas):
  return Options(block=64, ctas=ctas, interpret=True)


def _expected(q, segments):
  """float32 attention over the very numbers that the kernel gets."""
  one = join(segments)
  k, v = one.plain(jnp.float32)
  return reference.attention(
    q.astype(jnp.float32), k, v, Visible(one.mask, None)
  )


def _check(out, expected, gate=GATE):
  error = np.abs(np.asarray(out, np.float32) - expected).max()
  assert error <= gate * np.abs(expected).max()


def test_past_and_current_with_holes_and_tail():
  """One whole tile, one cut in two and merged; frames of 50 keys."""
  q = _draw(0, 1, 150, 1)
  past = Segment(
    _draw(1, 1, 200, 1),
    _draw(2, 1, 200, 1),
    mask=jnp.array([True, False, True, True]),
  )
  current = Segment(_draw(3, 1, 100, 1), _draw(4, 1, 100, 1), jnp.int32(70))
  # 3 CTAs for 2 tiles: both are cut.
  for ctas in (1, 3):
    run = functools.partial(mosaic.attention, options=_options(ctas))
    out = jax.jit(run)(q, (past, current))
    assert out.dtype == jnp.bfloat16
    _check(out, _expected(q, (past, current)))


def test_pages_in_any_order():
  """A paged ring: whole tiles first, the rest cut; fix-up by reference."""
  q, k, v = _draw(0, 1, 130, 2), _draw(1, 1, 256, 2), _draw(2, 1, 256, 2)
  blocks = table_blocks(jnp.array([2, 0, 3, 1]), jnp.int32(3), 40, 64)
  assert blocks.counts.tolist() == [3, 2]
  options = _options(3)
  out, parts, sums = jax.jit(
    lambda q, k, v: ring_attention(q, [k], [v], blocks, options=options)
  )(q, k, v)
  shape = schedule(q, None, options)
  assert (shape.waves, shape.cut) == (1, 1)
  out = merge_reference(out, parts, sums, blocks.counts[0], shape)
  keep = np.r_[128:192, 0:64, 192:232]
  _check(out, _expected(q, [Segment(k[:, keep], v[:, keep])]))


def test_fp8_scores_with_scales_per_page():
  """As exact as bf16 about the quantised numbers."""
  q = _draw(0, 1, 64, 1)
  k, v = _draw(1, 1, 256, 1), _draw(2, 1, 256, 1)
  scale = page_scale(k, 128)
  past = Segment(
    quantize(k, jnp.repeat(scale, 128, 1).T[..., None]), v, 200, None, scale
  )
  options = Options(block=128, ctas=1, interpret=True)
  run = functools.partial(mosaic.attention, q_scale=0.5, options=options)
  out = jax.jit(run)(q, (past,))
  rounded = quantize(q, 0.5).astype(jnp.float32) * 0.5
  _check(out, _expected(rounded, (past,)))
  # Against numbers that are not quantised: 3 bits behind the point.
  _check(out, _expected(q, [Segment(k, v, 200)]), 2.0**-4)


def test_samples_with_banks_of_different_length():
  q = _draw(0, 2, 64, 1)
  own = Segment(_draw(1, 2, 64, 1), _draw(2, 2, 64, 1))
  bank = Segment(_draw(3, 2, 128, 1), _draw(4, 2, 128, 1), jnp.array([128, 10]))
  run = functools.partial(mosaic.attention, options=_options(1))
  _check(jax.jit(run)(q, (own, bank)), _expected(q, (own, bank)))


@pytest.mark.parametrize(
  'dim, dtype, ranges, message',
  [
    (32, jnp.bfloat16, None, 'head dims 64 and 128, not 32'),
    (64, jnp.float32, None, 'queries in bfloat16, not float32'),
    (64, jnp.bfloat16, np.zeros((1, 8, 2), int), 'same keys for all'),
  ],
)
def test_what_the_kernel_refuses(dim, dtype, ranges, message):
  x = jnp.zeros((1, 8, 1, dim), dtype)
  with pytest.raises(ValueError, match=message):
    mosaic.attention(x, [Segment(x, x)], ranges)


def test_impossible_options():
  with pytest.raises(ValueError, match='block=96'):
    Options(block=96)
