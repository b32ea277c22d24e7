"""Softmax attention: one function, several backends.

Shapes: q `[B, T, N, D]`, k and v `[B, S, N, D]`, result `[B, T, N, D]`.
Keys have no order: a ring buffer needs no rolling, only a valid count.
"""

from jaxvid.ops.attention.api import BACKENDS, attention
from jaxvid.ops.attention.ranges import (
  block_causal,
  ranges_mask,
  teacher_forcing,
)

__all__ = [
  'BACKENDS',
  'attention',
  'block_causal',
  'ranges_mask',
  'teacher_forcing',
]
