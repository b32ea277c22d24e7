"""The memory ring against a memory that forgets nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxvid.errors import UserError
from jaxvid.memory import Memory, MemoryConfig
from jaxvid.memory.slots import rank_of_slots, slot_of
from jaxvid.ops.attention import (
  Visible,
  attention,
  block_causal,
  fp8,
  logit_bytes,
  ranges_mask,
  reference,
  teacher_forcing,
  xla,
)
from jaxvid.ops.rope import rotate, rotation

HEADS, DIM, SIZE = 2, 12, (1, 2)


def _qkv(i, frames):
  keys = jax.random.split(jax.random.key(i), 3)
  shape = (1, frames * 2, HEADS, DIM)
  return [jax.random.normal(key, shape) for key in keys]


def _visible(chunks_end, sink, window):
  """Frames a chunk ending before `chunks_end` may see."""
  recent = range(max(chunks_end - window, 0), chunks_end)
  old = range(min(sink, chunks_end))
  if chunks_end <= sink + window:
    return list(range(chunks_end))
  return sorted({*old, *recent})


@pytest.mark.parametrize('stacked', [False, True], ids=['ring', 'delta'])
@pytest.mark.parametrize('positions', ['absolute', 'relative'])
@pytest.mark.parametrize(
  'sink, window, sizes',
  [
    (3, 9, [3] * 9),
    (0, 6, [3] * 6),
    (1, 5, [3] * 7),
    (0, 4, [1] * 11),
    (2, 7, [2] * 9),
    (3, 9, [1] + [3] * 9),
    (4, 3, [3] * 6),
  ],
)
@pytest.mark.parametrize('spare', [0, 4])
def test_ring_equals_concatenated_window(
  sink, window, sizes, spare, positions, stacked
):
  aligned = len({*sizes}) == 1
  config = MemoryConfig(
    *SIZE, sink, window, sizes[-1], positions, aligned, spare
  )
  memory = Memory.create(
    config, batch=1, layers=1, heads=HEADS, head_dim=DIM, stacked=stacked
  )
  keys, values, start = [], [], 0
  for i, frames in enumerate(sizes):
    end = start + frames
    q, k, v = _qkv(i, frames)
    _, _, stale = _qkv(1000 + i, frames)
    for tick_k, tick_v in ((stale, stale), (k, v)):
      plan = memory.plan(frames)
      out, cache = plan.attend(q, tick_k, tick_v, memory.layer(0))
      update = tuple(x[None] for x in cache) if stacked else [cache]
      memory = memory.updated(plan, update)
    memory = memory.advance(frames)
    keys.append(k.reshape(1, frames, 2, HEADS, DIM))
    values.append(v.reshape(1, frames, 2, HEADS, DIM))
    seen = np.array(_visible(end, sink, window))
    index = seen if positions == 'absolute' else np.arange(len(seen))
    own = index[-frames:]
    past_k = jnp.concatenate(keys, 1)[:, seen].reshape(1, -1, HEADS, DIM)
    past_v = jnp.concatenate(values, 1)[:, seen].reshape(1, -1, HEADS, DIM)
    expected = attention(
      rotate(q, rotation(own, *SIZE, DIM)),
      rotate(past_k, rotation(index, *SIZE, DIM)),
      past_v,
    )
    np.testing.assert_allclose(out, expected, atol=2e-5)
    start = end


@pytest.mark.parametrize('stacked', [False, True], ids=['ring', 'delta'])
@pytest.mark.parametrize('positions', ['absolute', 'relative'])
def test_keys_in_8_bits_are_rounded_once(positions, stacked):
  config = MemoryConfig(*SIZE, 0, 6, 3, positions, key_dtype='e4m3')
  memory = Memory.create(
    config, batch=1, layers=1, heads=HEADS, head_dim=DIM, stacked=stacked
  )
  assert memory.k[0].dtype == fp8.E4M3 and memory.v[0].dtype == jnp.float32
  past: list = []
  for i in range(4):
    q, k, v = _qkv(i, 3)
    plan = memory.plan(3)
    out, cache = plan.attend(q, k, v, memory.layer(0))
    update = tuple(x[None] for x in cache) if stacked else [cache]
    memory = memory.updated(plan, update).advance(3)
    first = max(3 * i - 3, 0)
    at = rotation(jnp.arange(first, 3 * i + 3), *SIZE, DIM)
    own = rotation(jnp.arange(3 * i, 3 * i + 3), *SIZE, DIM)
    if positions == 'absolute':  # Rotated by its own frame, then rounded.
      past = [*past[-1:], (fp8.quantize(rotate(k, own)).astype(k.dtype), v)]
      keys = jnp.concatenate([k for k, _ in past], 1)
    else:
      past = [*past[-1:], (fp8.quantize(k).astype(k.dtype), v)]
      keys = rotate(jnp.concatenate([k for k, _ in past], 1), at)
    values = jnp.concatenate([v for _, v in past], 1)
    expected = attention(rotate(q, own), keys, values)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_keys_in_8_bits_do_not_overflow():
  config = MemoryConfig(*SIZE, 0, 3, 3, key_dtype='e4m3')
  memory = Memory.create(config, batch=1, layers=1, heads=HEADS, head_dim=DIM)
  q, k, v = _qkv(0, 3)
  plan = memory.plan(3)
  out, cache = plan.attend(q, 1e4 * k, v, memory.layer(0))
  assert np.isfinite(out).all()
  assert np.isfinite(np.asarray(cache[0], np.float32)).all()


@pytest.mark.parametrize('positions', ['absolute', 'relative'])
@pytest.mark.parametrize('before', [0, 4])
def test_spare_slots_let_a_clip_be_replayed(positions, before):
  """Every chunk of a clip finds in the last memory what it found then."""
  clip, chunk = 4, 3
  config = MemoryConfig(*SIZE, 3, 6, chunk, positions, spare=clip * chunk)
  memory = Memory.create(
    config, batch=1, layers=1, heads=HEADS, head_dim=DIM, stacked=True
  )
  outputs = []
  for i in range(before + clip):
    plan = memory.plan(chunk)
    out, cache = plan.attend(*_qkv(i, chunk), memory.layer(0))
    memory = memory.updated(plan, tuple(x[None] for x in cache))
    memory = memory.advance(chunk)
    outputs.append(out)
  for i in range(before, before + clip):
    plan = memory.at(i * chunk).plan(chunk)
    out, _ = plan.attend(*_qkv(i, chunk), memory.layer(0))
    np.testing.assert_allclose(out, outputs[i], atol=1e-6)


def test_slot_rule():
  frames = np.arange(20)
  assert slot_of(frames, 3, 12).tolist() == [*range(12), *range(3, 11)]
  assert slot_of(frames[:8], 0, 4).tolist() == [0, 1, 2, 3] * 2
  assert slot_of(frames[:9], 1, 6).tolist() == [0, 1, 2, 3, 4, 5, 1, 2, 3]
  assert rank_of_slots(9, 1, 6).tolist() == [0, 3, 4, 5, 1, 2]


@pytest.mark.parametrize('frame', [1_000, 100_000, 3_000_000])
def test_far_frames_keep_exact_relative_positions(frame):
  """Scores depend on distance alone, hours into a stream."""
  q, k, _ = _qkv(0, 2)
  near = [rotate(x, rotation(np.array([5, 7]), *SIZE, DIM)) for x in (q, k)]
  index = jnp.asarray([frame + 5, frame + 7], jnp.int32)
  far = [rotate(x, rotation(index, *SIZE, DIM)) for x in (q, k)]
  score = [jnp.einsum('btnd,bsnd->bnts', *pair) for pair in (near, far)]
  np.testing.assert_allclose(score[1], score[0], atol=2e-2)
  if frame <= 1_000:
    np.testing.assert_allclose(score[1], score[0], atol=2e-4)


def test_masks_as_drawn():
  causal = ranges_mask(block_causal(4, 2, 1), 4).astype(int).tolist()
  assert causal == [[1, 1, 0, 0], [1, 1, 0, 0], [1] * 4, [1] * 4]
  forced = ranges_mask(teacher_forcing(3, 1, 1), 6).astype(int).tolist()
  assert forced == [
    [1, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0],
    [1, 1, 1, 0, 0, 0],
    [0, 0, 0, 1, 0, 0],
    [1, 0, 0, 0, 1, 0],
    [1, 1, 0, 0, 0, 1],
  ]


VISIBLE = {
  'all': Visible(None, None),
  'prefix': Visible(jnp.arange(12) < 7, None),
  'ranges': Visible(None, jnp.asarray(teacher_forcing(3, 1, 2))),
  'both': Visible(jnp.arange(12) > 0, jnp.asarray(block_causal(6, 3, 2))),
}


@pytest.mark.parametrize('limit', [None, 4 * HEADS * 12 * 5, 1])
@pytest.mark.parametrize('visible', VISIBLE.values(), ids=VISIBLE)
def test_backends_equal_the_reference(visible, limit):
  """In one piece, in blocks of queries with a rest, and query by query."""
  q, k, v = _qkv(0, 6)
  limits = {} if limit is None else {'limit': limit}
  ours = functools.partial(xla.attention, visible=visible, **limits)
  theirs = functools.partial(reference.attention, visible=visible)
  np.testing.assert_allclose(ours(q, k, v), theirs(q, k, v), atol=1e-5)

  def energy(attend, *qkv):
    return jnp.sum(attend(*qkv) ** 3)

  slopes = [
    jax.jit(jax.grad(functools.partial(energy, attend), (0, 1, 2)))(q, k, v)
    for attend in (theirs, ours)
  ]
  for a, b in zip(*slopes, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_backends_take_the_same_arguments():
  q, k, v = _qkv(0, 3)
  ranges = jnp.asarray(block_causal(3, 1, 2))
  length, mask = jnp.asarray(4), jnp.arange(6) > 0
  for options in ({}, {'length': length}, {'ranges': ranges, 'mask': mask}):
    a, b, c = (
      attention(q, k, v, backend=name, **options)
      for name in ('reference', 'xla', 'auto')
    )
    np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(a, c, atol=1e-5)


def test_logits_are_bounded_and_small_ones_are_in_one_piece():
  """The whole clip of Wan2.1 1.3B with guidance: 103 GB of logits."""
  tokens = 21 * 1560
  assert logit_bytes(2, 12, tokens, tokens) <= xla.LIMIT
  assert logit_bytes(1, 40, 1, 10**9) == 4 * 40 * 10**9  # No rows to share.
  assert logit_bytes(32, 4, 112, 112) == 4 * 32 * 4 * 112 * 112
  shape = (2, tokens, 12, 128)
  x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
  program = jax.make_jaxpr(attention)(x, x, x)
  sizes = [
    int(np.prod(out.aval.shape)) * out.aval.dtype.itemsize
    for out in _outputs(program.jaxpr)
  ]
  assert xla.LIMIT // 2 < max(sizes) <= xla.LIMIT


def _outputs(jaxpr):
  """Every array that a program makes, also in its loops."""
  for equation in jaxpr.eqns:
    yield from equation.outvars
    for inner in jaxprs_in_params(equation.params):
      yield from _outputs(inner)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'window': 2, 'chunk': 3}, 'window 2'),
    ({'sink': -1}, 'sink -1'),
    ({'positions': 'roped'}, "'roped'"),
    ({'key_dtype': 'int8'}, "'int8'"),
    ({'key_dtype': 'e4m3', 'spare': 3}, 'without a bank'),
  ],
)
def test_impossible_memories_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    MemoryConfig(1, 2, **options)
