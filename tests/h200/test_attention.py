"""The attention kernels as an H200 would get them: no spills, no copies."""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import h200
from jaxvid.ops.attention import Segment, attention
from jaxvid.ops.attention.fp8 import E4M3
from jaxvid.ops.attention.mosaic import attention as mosaic
from jaxvid.ops.attention.mosaic.blocks import table_blocks

# Wan2.1 1.3B at 832 x 480: a chunk of 3 latent frames against a window of 12.
QUERIES, KEYS, HEADS, DIM = 4680, 18720, 12, 128
BF16 = jnp.bfloat16


def _array(size, dtype=BF16, heads=HEADS, dim=DIM, batch=1):
  return h200.spec((batch, size, heads, dim), dtype)


def _compiled(fun, *args):
  """The program's report and its Mosaic kernels."""
  with h200.watch_kernels() as kernels:
    executable = h200.compile(fun, *args)
  return h200.report(executable), kernels


def _check(report, kernels, count=1, temp_mb=20):
  """Two kernels (attention, fix-up) without spills, nothing copied."""
  assert report['big_copies'] == []
  assert report['custom_calls'] == {'mosaic_gpu_v2': 2 * count}
  assert all(k.spills == 0 for k in kernels.values())
  ring = kernels['ring_attention']
  assert ring.shared <= 232448 - 1024
  # The parts of cut tiles: 132 x 2 x 128 x 128 float32.
  assert report['temp_mb'] < temp_mb * count
  return ring.wgmma


def test_ring_with_valid_prefix():
  def attend(q, k, v, length):
    return attention(q, k, v, length=length, backend='mosaic')

  wgmma = _check(
    *_compiled(
      attend,
      _array(QUERIES),
      _array(KEYS),
      _array(KEYS),
      h200.spec((), jnp.int32),
    )
  )
  # Per block of 128 keys: 8 for Q K^T and 8 for P V; in two loops.
  assert wgmma == {'m64n128k16.f32.bf16.bf16': 32}


def test_past_current_and_bank():

  def attend(q, k, v, mask, own_k, own_v, bank_k, bank_v, count):
    bank = Segment(bank_k, bank_v, count)
    own = Segment(own_k, own_v)
    return attention(q, k, v, mask=mask, more=(own, bank), backend='mosaic')

  past, own, bank = (_array(n * 1560) for n in (12, 3, 6))
  wgmma = _check(
    *_compiled(
      attend,
      own,
      past,
      past,
      h200.spec((12,), jnp.bool),
      own,
      own,
      bank,
      bank,
      h200.spec((), jnp.int32),
    )
  )
  assert wgmma == {'m64n128k16.f32.bf16.bf16': 32}


def test_pages_in_any_order():
  def attend(q, k, v, table, count, tail):
    blocks = table_blocks(table, count, tail, 128)
    return mosaic.attend_blocks(q, [k], [v], blocks)

  scalar = h200.spec((), jnp.int32)
  keys = _array(147 * 128)
  table = h200.spec((147,), jnp.int32)
  _check(*_compiled(attend, _array(QUERIES), keys, keys, table, scalar, scalar))


@pytest.mark.parametrize('dim', [64, 128])
def test_fp8_scores(dim):
  """Q K^T in fp8 from a memory whose keys are stored in e4m3."""

  def attend(q, k, v, scale):
    return mosaic.attention(q, [Segment(k, v, scale=scale)])

  wgmma = _check(
    *_compiled(
      attend,
      _array(QUERIES, dim=dim),
      _array(KEYS, E4M3, dim=dim),
      _array(KEYS, dim=dim),
      h200.spec((HEADS,), jnp.float32),
    ),
    temp_mb=30,  # The queries in e4m3 as well.
  )
  assert wgmma == {
    'm64n128k32.f32.e4m3.e4m3': 2 * dim // 32,
    f'm64n{dim}k16.f32.bf16.bf16': 16,
  }


def test_samples_with_own_lengths():
  def attend(q, k, v, length):
    return attention(q, k, v, length=length, backend='mosaic')

  x = _array(KEYS, batch=2)
  report, kernels = _compiled(
    attend, _array(QUERIES, batch=2), x, x, h200.spec((2,), jnp.int32)
  )
  _check(report, kernels, 2)


def test_rows_that_are_no_multiple_of_8():
  """1590 tokens per frame, as at 848 x 480: padded, but it compiles."""

  def attend(q, k, v, mask):
    return attention(q, k, v, mask=mask, backend='mosaic')

  x = _array(15 * 1590)
  _, kernels = _compiled(
    attend, _array(3 * 1590), x, x, h200.spec((15,), jnp.bool)
  )
  assert kernels['ring_attention'].spills == 0


@pytest.mark.parametrize('queries, keys', [(1560, 18720), (4680, 512)])
def test_other_shapes(queries, keys):
  """One latent frame at a time; text."""
  run = functools.partial(attention, backend='mosaic')
  x = _array(keys)
  _check(*_compiled(run, _array(queries), x, x))


def test_cudnn_takes_prefix_and_holes_forward_and_back():
  """Training: gradients through cuDNN, keys that count gathered in front."""

  def loss(q, k, v, mask, length):
    own = Segment(q, q)
    run = functools.partial(attention, backend='cudnn')
    a = run(q, k, v, length=length)
    b = run(q, k, v, mask=mask, more=(own,))
    return jnp.sum((a + b).astype(jnp.float32) ** 2)

  report = h200.report(
    h200.compile(
      jax.grad(loss, (0, 1, 2)),
      _array(QUERIES),
      _array(KEYS),
      _array(KEYS),
      h200.spec((12,), jnp.bool),
      h200.spec((), jnp.int32),
    )
  )
  calls = report['custom_calls']
  assert calls['__cudnn$fmhaSoftmax'] == 2
  assert calls['__cudnn$fmhaSoftmaxBackward'] == 2
