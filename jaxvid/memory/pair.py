"""Two chunks in one pass: the older one's last tick, the newer one's first.

In each layer the older chunk writes its keys and values and attends, then the
newer one does. So the older chunk still finds the frames that the newer one
puts out of the memory, without a spare slot for them; and the newer one finds
the older one's final keys and values, as if the passes were apart.
"""

import jax.numpy as jnp
from flax import struct

from jaxvid.memory.memory import Memory
from jaxvid.memory.plan import CachedPlan, LayerCache


@struct.dataclass
class PairPlan:
  """Plans of both chunks; their tokens follow each other.

  Attributes:
    older: plan of the chunk that is in memory already, unfinished.
    newer: plan of the chunk after it.
  """

  older: CachedPlan
  newer: CachedPlan

  @property
  def backend(self) -> str:
    """Attention backend."""
    return self.newer.backend

  @property
  def in_place(self) -> bool:
    """Always: layers return whole buffers."""
    return True

  def attend(self, q, k, v, cache: LayerCache):
    """Attention `[B, T, N, D]` of both chunks and the layer's new cache."""
    half = self.older.q_rotation.shape[1]
    parts = []
    for plan, at in (
      (self.older, slice(half)),
      (self.newer, slice(half, None)),
    ):
      out, cache = plan.attend(q[:, at], k[:, at], v[:, at], cache)
      parts.append(out)
    return jnp.concatenate(parts, 1), cache


def pair_plan(
  memory: Memory,
  frames: int,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> PairPlan:
  """Plan for the chunk before `memory.frame` and the one at it.

  Args:
    memory: in place, without spare slots.
    frames: of each chunk.
    backend: attention backend.
    theta: of the rotary frequencies.
    grid: see `ops.rope.rotation`.
  """
  older = memory.at(memory.frame - frames)
  return PairPlan(
    older.plan(frames, backend, theta, grid),
    memory.plan(frames, backend, theta, grid),
  )
