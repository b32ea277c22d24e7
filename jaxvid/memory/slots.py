"""Where a latent frame lives: sink slots first, then a ring.

All functions are plain index arithmetic on traced or concrete integers.
"""

import jax
import jax.numpy as jnp


def slot_of(frame: jax.Array, sink: int, capacity: int) -> jax.Array:
  """Slot of a latent frame: `f` in the sink, else its place on the ring."""
  frame = jnp.asarray(frame, jnp.int32)
  ring = max(capacity - sink, 1)
  return jnp.where(frame < sink, frame, sink + (frame - sink) % ring)


def frame_of_slots(end: jax.Array, sink: int, capacity: int) -> jax.Array:
  """Latent frame in every slot, once frames `< end` are in.

  Returns:
    int32 `[capacity]`; a ring slot not yet filled says a frame below `sink`.
  """
  ring = max(capacity - sink, 1)
  slot = jnp.arange(capacity)
  newest = end - 1
  return jnp.where(slot < sink, slot, newest - (newest - slot) % ring)


def oldest_frame(end: jax.Array, sink: int, window: int) -> jax.Array:
  """First frame behind the sink that a window ending at `end` holds."""
  return jnp.maximum(sink, end - window)


def rank_of_slots(
  end: jax.Array, sink: int, capacity: int, oldest: jax.Array | None = None
) -> jax.Array:
  """Temporal order of every slot, sinks first, once frames `< end` are in.

  Args:
    end: number of latent frames written so far.
    sink: sink slots S.
    capacity: all slots.
    oldest: frame whose rank is `sink`; by default the oldest on the ring.

  Returns:
    int32 `[capacity]`; entries of slots not filled, or holding frames before
    `oldest`, mean nothing.
  """
  if oldest is None:
    oldest = oldest_frame(end, sink, max(capacity - sink, 1))
  frame = frame_of_slots(end, sink, capacity)
  slot = jnp.arange(capacity)
  return jnp.where(slot < sink, slot, sink + frame - oldest)
