"""Softmax attention: one function, several backends.

Shapes: q `[B, T, N, D]`, k and v `[B, S, N, D]`, result `[B, T, N, D]`.
Keys have no order: a ring buffer needs no rolling, only a valid count, and
keys in several places (`Segment`) need no joining.
"""

from jaxvid.ops.attention.api import BACKENDS, attention
from jaxvid.ops.attention.ranges import (
  Visible,
  block_causal,
  ranges_mask,
  teacher_forcing,
)
from jaxvid.ops.attention.segments import Segment
from jaxvid.ops.attention.xla import logit_bytes

__all__ = [
  'BACKENDS',
  'Segment',
  'Visible',
  'attention',
  'block_causal',
  'logit_bytes',
  'ranges_mask',
  'teacher_forcing',
]
