"""cuDNN's fused attention, forward and backward, on NVIDIA GPUs.

It knows a valid prefix of the keys and nothing else without a bias of T x S
numbers. Keys have no order, though, so those that count are gathered in
front; the gather's derivative scatters.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from jaxvid.ops.attention.ranges import ranges_mask
from jaxvid.ops.attention.segments import Segment, join

# Bytes of a bias [T, S] that masks of single queries may take.
BIAS_LIMIT = 1 << 30


def refuses(
  q: jax.Array, segments: Sequence[Segment], ranges: jax.Array | None
) -> str | None:
  """Why cuDNN cannot do this; None if it can."""
  dim, dtype = q.shape[-1], q.dtype
  if dtype not in (jnp.bfloat16, jnp.float16):
    return f'cuDNN attends in bfloat16 or float16, not {dtype}'
  if dim % 8 or dim > 128:
    return f'head dim {dim} is not a multiple of 8 up to 128'
  if ranges is not None:
    keys = sum(s.k.shape[1] for s in segments)
    size = q.shape[1] * keys * dtype.itemsize
    if size > BIAS_LIMIT:
      return f'a mask of {q.shape[1]} x {keys} takes {size / 2**30:.1f} GiB'
    if q.shape[1] % 2 or keys % 2:
      return 'with a mask of queries their number and that of keys must be even'
  return None


def attention(
  q: jax.Array,
  segments: Sequence[Segment],
  ranges: jax.Array | None = None,
) -> jax.Array:
  """As `reference.attention`, in the type of q; differentiable.

  Args:
    q: `[B, T, N, D]`, bfloat16 or float16, D a multiple of 8 up to 128.
    segments: keys and values.
    ranges: see `ranges.py`; written out as T x S numbers.

  Raises:
    ValueError: cuDNN cannot do this, or is not installed.
  """
  reason = refuses(q, segments, ranges)
  if reason:
    raise ValueError(f'{reason}; use another attention backend')
  simple = len(segments) == 1 and segments[0].mask is None
  length = mask = None
  if ranges is not None:
    one = join(segments)
    mask = ranges_mask(ranges, one.k.shape[1])[None, None]
    if one.mask is not None:
      mask = mask & jnp.atleast_2d(one.mask)[:, None, None]
  elif simple:
    (one,) = segments
    length = one.length
  else:
    one = join(segments)
    if one.mask is not None:
      one, length = _gather(one, one.mask)
  if length is not None:
    length = jnp.broadcast_to(jnp.asarray(length, jnp.int32), q.shape[:1])
  k, v = one.plain(q.dtype)
  q, k, v = _alike(q, k, v)
  try:
    return jax.nn.dot_product_attention(
      q,
      k,
      v,
      mask=mask,
      key_value_seq_lengths=length,
      implementation='cudnn',
    )
  except RuntimeError as error:
    if 'cuDNN is not detected' in str(error):
      message = "the 'cudnn' backend needs an NVIDIA GPU with cuDNN"
      raise ValueError(message) from error
    raise


def _alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """q, k and v split over devices in one way, which cuDNN's kernel demands.

  Left alone, the compiler may choose another layout for each. Of the axes of
  the mesh (`jax.set_mesh`) those that divide the batch split the batch, others
  the heads if they divide them; sequences stay whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  batch, _, heads, _ = arrays[0].shape
  over_batch, over_heads = [], []
  for name, size, kind in zip(
    mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True
  ):
    if kind != AxisType.Auto or size == 1:
      continue
    if batch % size == 0:
      over_batch.append(name)
      batch //= size
    elif heads % size == 0:
      over_heads.append(name)
      heads //= size
  if not over_batch and not over_heads:
    return arrays
  spec = PartitionSpec(tuple(over_batch), None, tuple(over_heads))
  return tuple(jax.lax.with_sharding_constraint(x, spec) for x in arrays)


def _gather(one: Segment, mask: jax.Array) -> tuple[Segment, jax.Array]:
  """The keys that count in front, and how many they are."""
  order = jnp.argsort(~mask, axis=-1, stable=True)
  length = jnp.sum(mask, -1, dtype=jnp.int32)

  def take(x):
    if order.ndim == 1:
      return x.at[:, order].get(unique_indices=True, mode='promise_in_bounds')
    rows = jnp.arange(x.shape[0])[:, None]
    return x.at[rows, order].get(unique_indices=True, mode='promise_in_bounds')

  return one._replace(k=take(one.k), v=take(one.v), mask=None), length
