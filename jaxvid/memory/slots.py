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


def rank_of_slots(end: jax.Array, sink: int, capacity: int) -> jax.Array:
  """Temporal order of every slot, sinks first, once frames `< end` are in.

  Args:
    end: number of latent frames written so far.
    sink: sink slots S.
    capacity: all slots.

  Returns:
    int32 `[capacity]`; entries of slots not yet filled mean nothing.
  """
  ring = max(capacity - sink, 1)
  slot = jnp.arange(capacity)
  newest = end - 1
  frame = newest - (newest - slot) % ring
  oldest = jnp.maximum(sink, end - ring)
  return jnp.where(slot < sink, slot, sink + frame - oldest)
