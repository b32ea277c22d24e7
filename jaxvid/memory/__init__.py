"""Memory: which past keys and values a tick may read, and where it writes.

`Memory` is a plain pytree carried by the caller; a `Plan` tells every layer
of one tick what to write, what to attend and how to rotate.
"""

from jaxvid.memory.linear import LinearMemory
from jaxvid.memory.memory import Memory, MemoryConfig
from jaxvid.memory.plan import CachedPlan, ParallelPlan, parallel
from jaxvid.memory.recache import (
  RecachePlan,
  held_frames,
  recache_plan,
  upstream_recache_plan,
)

__all__ = [
  'CachedPlan',
  'LinearMemory',
  'Memory',
  'MemoryConfig',
  'ParallelPlan',
  'RecachePlan',
  'held_frames',
  'parallel',
  'recache_plan',
  'upstream_recache_plan',
]
