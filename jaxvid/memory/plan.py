"""Plans: what each layer of one tick does with its queries, keys and values.

A plan is computed once per tick and shared by all layers. `attend` writes
and reads; models call it and know nothing else about memory.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.ops.attention import Segment, attention, fp8
from jaxvid.ops.rope import rotate, rotation

# K and V of one layer, or None where there is no memory.
LayerCache = tuple[jax.Array, jax.Array] | None


def stored(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Keys or values in the type of a memory; 8-bit floats do not overflow."""
  return fp8.quantize(x) if dtype == fp8.E4M3 else x.astype(dtype)


@struct.dataclass
class ParallelPlan:
  """All tokens in one pass, no memory: teachers and parallel training.

  Attributes:
    rotation: `[2, T, D / 2]` for queries and keys.
    ranges: None (everything attends everything) or int32 `[R, T, 2]`.
    backend: attention backend.
    split: layout of the pairs, see `ops.rope.rotate`.
  """

  rotation: jax.Array
  ranges: jax.Array | None = None
  backend: str = struct.field(pytree_node=False, default='xla')
  split: bool = struct.field(pytree_node=False, default=False)

  def attend(self, q, k, v, cache: LayerCache):
    """Returns attention `[B, T, N, D]` and the (absent) cache."""
    q, k = (rotate(x, self.rotation, self.split) for x in (q, k))
    out = attention(q, k, v, ranges=self.ranges, backend=self.backend)
    return out, cache


def parallel(
  frames: jax.Array,
  height: int,
  width: int,
  head_dim: int,
  ranges: jax.Array | None = None,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
  split: bool = False,
) -> ParallelPlan:
  """Plan for latent frames at positions `frames` `[F]`, all in one pass.

  For teacher forcing, `frames` runs over the clip twice and `ranges` comes
  from `ops.attention.teacher_forcing`.
  """
  return ParallelPlan(
    rotation(frames, height, width, head_dim, theta, grid),
    ranges,
    backend,
    split,
  )


@struct.dataclass
class CachedPlan:
  """One chunk against a memory of past keys and values.

  Attributes:
    slots: int32 `[F]`, slot of each frame of the chunk; a slot beyond the
      capacity drops that frame's K/V.
    before: frames in memory before the chunk, at most the capacity.
    valid: frames in memory with the chunk.
    visible: bool `[S]`, slots whose frames the chunk attends besides itself;
      None when they are all that are filled.
    q_rotation: `[2, T, D / 2]` of the chunk's tokens.
    slot_rotation: None when keys are stored rotated (absolute positions),
      else `[2, S, D / 2]`, applied to stored keys at read.
    tokens: tokens per latent frame.
    contiguous: the slots are one ascending run.
    in_place: write first, then attend a prefix (inference, donated buffers);
      False leaves the cache alone and returns the chunk's K/V (training, and
      memories with spare slots).
    backend: attention backend.
    split: layout of the pairs, see `ops.rope.rotate`.
  """

  slots: jax.Array
  before: jax.Array
  valid: jax.Array
  visible: jax.Array | None
  q_rotation: jax.Array
  slot_rotation: jax.Array | None
  tokens: int = struct.field(pytree_node=False)
  contiguous: bool = struct.field(pytree_node=False)
  in_place: bool = struct.field(pytree_node=False)
  backend: str = struct.field(pytree_node=False, default='xla')
  split: bool = struct.field(pytree_node=False, default=False)

  def attend(self, q, k, v, cache: LayerCache):
    """Attention of the chunk over memory and itself.

    Returns:
      `[B, T, N, D]` and the layer's new cache `[B, S, N, D]` x 2; or, when
      not in place, the chunk's own K and V `[B, T, N, D]` to be written
      after the layer scan.
    """
    q = rotate(q, self.q_rotation, self.split)
    if self.slot_rotation is None:
      k = rotate(k, self.q_rotation, self.split)
    return (self._in_place if self.in_place else self._apart)(q, k, v, cache)

  def _in_place(self, q, k, v, cache):
    keys, values = self.write(cache[0], k), self.write(cache[1], v)
    length = self.valid * self.tokens
    read = keys
    if self.slot_rotation is not None:
      read = self._turn(keys.astype(values.dtype))
    out = attention(q, read, values, length=length, backend=self.backend)
    return out, (keys, values)

  def _apart(self, q, k, v, cache):
    past, values = cache[0], v.astype(cache[1].dtype)
    own = stored(k, past.dtype)
    if self.slot_rotation is not None:
      own = rotate(own.astype(values.dtype), self.q_rotation, self.split)
      past = self._turn(past.astype(values.dtype))
    capacity = past.shape[1] // self.tokens
    # Frames that are not kept are not attended either, as in place.
    chunk = Segment(own, values, mask=self.slots < capacity)
    out = attention(
      q,
      past,
      cache[1],
      mask=self._past_slots(capacity),
      more=(chunk,),
      backend=self.backend,
    )
    return out, (k, v)

  def past(self, capacity: int) -> jax.Array:
    """Which tokens of memory the chunk attends besides its own, bool `[S]`.

    Args:
      capacity: slots of the memory.
    """
    return jnp.repeat(self._past_slots(capacity), self.tokens)

  def _past_slots(self, capacity):
    slot = jnp.arange(capacity)
    stale = (slot[:, None] == self.slots).any(1)
    filled = slot < self.before if self.visible is None else self.visible
    return filled & ~stale

  def _turn(self, keys):
    return rotate(keys, self.slot_rotation, self.split)

  def write(self, buffer: jax.Array, new: jax.Array) -> jax.Array:
    """Writes the chunk `[..., T, N, D]` into a buffer `[..., S, N, D]`."""
    new = stored(new, buffer.dtype)
    if self.contiguous:
      start = self.slots[0] * self.tokens
      return jax.lax.dynamic_update_slice_in_dim(buffer, new, start, -3)
    lead, tail = buffer.shape[:-3], buffer.shape[-2:]
    frames = buffer.reshape(*lead, -1, self.tokens, *tail)
    new = new.reshape(*lead, -1, self.tokens, *tail)
    index = (*(slice(None),) * len(lead), self.slots)
    frames = frames.at[index].set(new, mode='drop')
    return frames.reshape(buffer.shape)
