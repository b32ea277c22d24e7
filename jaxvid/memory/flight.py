"""Several chunks in flight at once, each at a noise level of its own.

The chunks are not in memory yet: they see it as the oldest of them does, and
each other, all or only those before. Nothing is written.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.memory.bank import BankMemory
from jaxvid.memory.memory import Memory
from jaxvid.memory.plan import stored
from jaxvid.memory.slots import oldest_frame
from jaxvid.ops.attention import attention, block_causal
from jaxvid.ops.rope import rotate, rotation


@struct.dataclass
class FlightPlan:
  """W chunks against a memory that stays as it is.

  Attributes:
    rotation: `[2, T, D / 2]` of the tokens of all chunks.
    ranges: int32 `[R, T, 2]` over keys `[own | past]`; None = all.
    past: bool `[S]`, what of a ring is attended; None for a bank, which says
      itself how much counts.
    slot_rotation: see `CachedPlan`.
    backend: attention backend.
    split: layout of the pairs, see `ops.rope.rotate`.
    oldest: tokens of the oldest chunk, the only ones a bank is told of.
  """

  rotation: jax.Array
  ranges: jax.Array | None
  past: jax.Array | None
  slot_rotation: jax.Array | None
  backend: str = struct.field(pytree_node=False)
  split: bool = struct.field(pytree_node=False)
  oldest: int = struct.field(pytree_node=False)

  @property
  def in_place(self) -> bool:
    """What layers return is the memory as it was."""
    return True

  def attend(self, q, k, v, cache):
    """Attention `[B, T, N, D]` and the layer's cache, unchanged."""
    q, k = (rotate(x, self.rotation, self.split) for x in (q, k))
    tokens = q.shape[1]
    if self.past is None:
      (past_k, length), past_v = cache
      keep = jnp.arange(past_k.shape[1]) < length[:, None]
      mask = jnp.pad(keep, ((0, 0), (tokens, 0)), constant_values=True)
    else:
      past_k, past_v = cache
      mask = jnp.pad(self.past, (tokens, 0), constant_values=True)
    keys, values = past_k, past_v
    if self.slot_rotation is not None:
      keys = rotate(keys.astype(values.dtype), self.slot_rotation, self.split)
    keys = jnp.concatenate([stored(k, keys.dtype), keys], 1)
    values = jnp.concatenate([v.astype(values.dtype), values], 1)
    out = attention(
      q, keys, values, mask=mask, ranges=self.ranges, backend=self.backend
    )
    if self.past is not None:
      return out, cache
    own = slice(self.oldest)
    scores = jnp.zeros((q.shape[0], self.oldest))
    return out, (k[:, own].astype(past_k.dtype), v[:, own], scores)

  def write(self, buffer: jax.Array, new: jax.Array) -> jax.Array:
    """Keeps what layers return."""
    del buffer
    return new


def flight_plan(
  memory: Memory | BankMemory,
  chunks: int,
  mutual: bool,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> FlightPlan:
  """Plan of a tick over the next `chunks` chunks.

  Args:
    memory: before the oldest of them; a bank that has begun it.
    chunks: in flight, W.
    mutual: they attend each other both ways; else only earlier ones.
    backend: attention backend.
    theta: of the rotary frequencies.
    grid: see `ops.rope.rotation`.
  """
  config = memory.config
  frames, tokens = chunks * config.chunk, chunks * config.chunk * config.tokens
  ranges = past = slot_rotation = None
  start = memory.frame
  if isinstance(memory, BankMemory):
    head_dim, keys = memory.head_dim, memory.context
    if config.positions == 'relative':
      start = memory.rank * config.chunk
  else:
    one = memory.plan(config.chunk, backend, theta, grid)
    past, slot_rotation = one.past(config.capacity), one.slot_rotation
    head_dim, keys = memory.k[0].shape[-1], len(past)
    if config.positions == 'relative':
      end = memory.frame + config.chunk
      start += config.sink - oldest_frame(end, config.sink, config.window)
  if not mutual:
    own = jnp.asarray(block_causal(frames, config.chunk, config.tokens))
    rest = jnp.asarray([tokens, tokens + keys], jnp.int32)
    ranges = jnp.concatenate([own, jnp.broadcast_to(rest, own.shape)])
  size = config.height, config.width, head_dim, theta, grid
  return FlightPlan(
    rotation=rotation(start + jnp.arange(frames), *size),
    ranges=ranges,
    past=past,
    slot_rotation=slot_rotation,
    backend=backend,
    split=config.split,
    oldest=config.chunk * config.tokens,
  )
