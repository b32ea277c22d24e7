"""Many chunks in one pass against the memory that the first of them found.

A stream makes chunks one after the other. Once they are known they can be
evaluated together: each sees what it saw then, the past in memory and the
chunks before it in this pass. Keys and values of the pass carry gradient,
those in memory do not.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.errors import UserError
from jaxvid.memory.memory import Memory
from jaxvid.memory.plan import LayerCache
from jaxvid.memory.slots import slot_of
from jaxvid.ops.attention import attention
from jaxvid.ops.rope import rotate, rotation


@struct.dataclass
class SegmentPlan:
  """A `Plan` that reads memory and writes nothing.

  Attributes:
    slots: int32 `[P]`, memory slots that are seen, in temporal order.
    rotation: `[2, T, D / 2]` of the segment's tokens.
    ranges: int32 `[3, T, 2]` over keys `[past | segment]`.
    tokens: tokens per latent frame.
    backend: of attention.
  """

  slots: jax.Array
  rotation: jax.Array
  ranges: jax.Array
  tokens: int = struct.field(pytree_node=False)
  backend: str = struct.field(pytree_node=False, default='xla')

  in_place = False

  def attend(self, q, k, v, cache: LayerCache):
    """Attention `[B, T, N, D]`, and the segment's own keys and values."""
    q, k = rotate(q, self.rotation), rotate(k, self.rotation)
    keys, values = (
      jnp.concatenate([self._past(old), new.astype(old.dtype)], 1)
      for old, new in zip(cache, (k, v), strict=True)
    )
    out = attention(q, keys, values, ranges=self.ranges, backend=self.backend)
    return out, (k, v)

  def write(self, buffer: jax.Array, new: jax.Array) -> jax.Array:
    """The buffer as it was: the stream itself has written already."""
    del new
    return buffer

  def _past(self, buffer):
    batch, _, *heads = buffer.shape
    frames = buffer.reshape(batch, -1, self.tokens, *heads)
    return frames[:, self.slots].reshape(batch, -1, *heads)


def segment_plan(
  memory: Memory,
  frames: int,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> SegmentPlan:
  """Plan of the next `frames` latent frames, whole chunks, in one pass.

  Args:
    memory: before the segment; absolute positions, no spare slots.
    frames: a multiple of the chunk.
    backend: of attention.
    theta: `DiTConfig.rope_theta`.
    grid: `DiTConfig.rope_grid`.

  Raises:
    UserError: relative positions, which shift while the segment goes on.
  """
  config = memory.config
  if config.positions != 'absolute' or config.spare or config.bank:
    raise UserError(
      'chunks can be evaluated together in memories with absolute positions '
      'only, without spare slots or bank'
    )
  sink, window, chunk = config.sink, config.window, config.chunk
  start, back = memory.frame, window - chunk
  seen = start - back + jnp.arange(back)
  slots = slot_of(jnp.maximum(seen, 0), sink, config.capacity)
  slots = jnp.concatenate([jnp.arange(sink, dtype=slots.dtype), slots])
  index = start + jnp.arange(frames)
  end = start + (jnp.arange(frames) // chunk + 1) * chunk

  def place(frame):
    # Of a latent frame among the keys `[sink | past of the window | own]`.
    return sink + frame - (start - back)

  zero = jnp.zeros_like(end)
  own_sinks = jnp.clip(jnp.minimum(sink, end), start, None)
  oldest = jnp.minimum(jnp.maximum(sink, end - window), end)
  bounds = (
    (zero, jnp.minimum(zero + sink, start)),
    (place(zero + start), place(own_sinks)),
    (place(oldest), place(end)),
  )
  ranges = jnp.stack([jnp.stack(pair, -1) for pair in bounds])
  ranges = config.tokens * jnp.repeat(ranges, config.tokens, 1)
  head_dim = (memory.k if memory.stacked else memory.k[0]).shape[-1]
  turn = rotation(index, config.height, config.width, head_dim, theta, grid)
  return SegmentPlan(slots, turn, ranges, config.tokens, backend)
