"""Recomputing memory for a new prompt.

Keys and values carry the prompt they were made with: cross-attention puts it
into the tokens, self-attention hands it on. A re-cache makes them anew from
the video's own latents. `recache_plan` does so as the stream had made them,
chunk by chunk and causally, all chunks in one pass; `upstream_recache_plan`
as the published pipeline does, in both directions at once.

Sources: LongLive, section 3.1 and algorithm 2; its release.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.memory.linear import LinearMemory, LinearRecachePlan
from jaxvid.memory.memory import Memory, MemoryConfig
from jaxvid.memory.plan import CachedPlan, LayerCache, stored
from jaxvid.memory.slots import oldest_frame, slot_of
from jaxvid.ops.attention import attention
from jaxvid.ops.rope import rotate, rotation


def held_frames(config: MemoryConfig, end: jax.Array) -> jax.Array:
  """Frames that chunks may attend at frame `end`, rising, `[sink + window]`.

  Those from `end` on do not exist yet: the memory is not full.
  """
  place = jnp.arange(config.sink + config.window)
  oldest = oldest_frame(end, config.sink, config.window)
  return jnp.where(
    place < config.sink, place, oldest + place - config.sink
  ).astype(jnp.int32)


@struct.dataclass
class RecachePlan:
  """All frames of a memory in one pass, each chunk seeing those before it.

  Attributes:
    slots: int32 `[F]`; a slot beyond the capacity drops that frame's K/V.
    rotation: `[2, T, D / 2]` of all tokens.
    ranges: int32 `[1, T, 2]`, block-causal.
    rotated: keys are stored rotated (absolute positions).
    tokens: tokens per latent frame.
    in_place: as `CachedPlan.in_place`.
    backend: attention backend.
    split: layout of the pairs, see `ops.rope.rotate`.
  """

  slots: jax.Array
  rotation: jax.Array
  ranges: jax.Array
  rotated: bool = struct.field(pytree_node=False)
  tokens: int = struct.field(pytree_node=False)
  in_place: bool = struct.field(pytree_node=False)
  backend: str = struct.field(pytree_node=False, default='xla')
  split: bool = struct.field(pytree_node=False, default=False)

  def attend(self, q, k, v, cache: LayerCache):
    """Attention `[B, T, N, D]` and the layer's new cache, see `CachedPlan`."""
    q, turned = (rotate(x, self.rotation, self.split) for x in (q, k))
    out = attention(q, turned, v, ranges=self.ranges, backend=self.backend)
    kept = turned if self.rotated else k
    if not self.in_place:
      return out, (kept, v)
    return out, (self.write(cache[0], kept), self.write(cache[1], v))

  def write(self, buffer: jax.Array, new: jax.Array) -> jax.Array:
    """Writes all frames `[..., T, N, D]` into a buffer `[..., S, N, D]`."""
    lead, tail = buffer.shape[:-3], buffer.shape[-2:]
    frames = buffer.reshape(*lead, -1, self.tokens, *tail)
    new = stored(new, buffer.dtype).reshape(*lead, -1, self.tokens, *tail)
    index = (*(slice(None),) * len(lead), self.slots)
    return frames.at[index].set(new, mode='drop').reshape(buffer.shape)


def recache_plan(
  memory: Memory | LinearMemory,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> RecachePlan | LinearRecachePlan:
  """Plan of a re-cache of everything the next chunk may attend.

  Equal to writing `held_frames` chunk by chunk into an empty memory, the
  oldest frame after the last of the sink. The number of frames is that of a
  full memory, so that one program serves all of a stream; while it fills,
  the last ones are computed in vain and dropped.

  Args:
    memory: whose `frame` is the next frame to generate.
    backend: attention backend.
    theta: of the rotary frequencies, `DiTConfig.rope_theta`.
    grid: `DiTConfig.rope_grid`.

  Returns:
    The plan; run it on `memory`, whose `frame` stays where it is.
  """
  config, end = memory.config, memory.frame
  frames = held_frames(config, end)
  if isinstance(memory, LinearMemory):
    return memory.recache_plan(frames, backend, theta, grid)
  real = frames < end
  # Chunks begin at the same rest of `frame` by `chunk` as the next one.
  owner = jnp.where(real, (frames - end) // config.chunk, 1)
  last = jnp.searchsorted(owner, owner, side='right')
  seen = jnp.repeat(last * config.tokens, config.tokens)
  ranges = jnp.stack([jnp.zeros_like(seen), seen], -1)[None]
  slots = slot_of(frames, config.sink, config.capacity)
  size = (config.height, config.width, memory.k[0].shape[-1], theta, grid)
  absolute = config.positions == 'absolute'
  place = frames if absolute else jnp.arange(len(frames))
  return RecachePlan(
    slots=jnp.where(real, slots, config.capacity),
    rotation=rotation(place, *size),
    ranges=ranges.astype(jnp.int32),
    rotated=absolute,
    tokens=config.tokens,
    in_place=not memory.stacked and not config.spare,
    backend=backend,
    split=config.split,
  )


def upstream_recache_plan(
  memory: Memory,
  frames: int,
  keep_sink: bool,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> CachedPlan:
  """Plan of LongLive's one-pass re-cache over the last `frames` latents.

  All frames go through the network at once, at t = 0 with the new prompt,
  attending each other in both directions (lineage of LongLive v1, section
  2.6; not the paper's block-causal rebuild).

  Args:
    memory: memory whose `frame` is the next frame to generate.
    frames: min(capacity, frames generated so far), a static number.
    keep_sink: True leaves sink K/V as they are (`global_sink: true`); False
      lets the oldest of the `frames` latents become the sink. While the
      memory is not full the pass starts at frame 0 and both forms agree.
    backend: attention backend.
    theta: of the rotary frequencies, `DiTConfig.rope_theta`.
    grid: `DiTConfig.rope_grid`.

  Returns:
    The plan; run it on `memory`, whose `frame` stays where it was.
  """
  config = memory.config
  index = memory.frame - frames + jnp.arange(frames)
  slots = slot_of(index, config.sink, config.capacity)
  ring = config.capacity - config.sink
  if frames == config.capacity:
    wrapped = jnp.arange(frames) < frames - ring
    moved = config.capacity if keep_sink else jnp.arange(frames)
    slots = jnp.where(wrapped & (index[0] > 0), moved, slots)
  return memory.plan_at(index, slots, memory.frame, False, backend, theta, grid)
