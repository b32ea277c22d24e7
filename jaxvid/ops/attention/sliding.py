"""Masks of a sink and a sliding window over a whole clip, as ranges of keys.

What a stream with memory SxWy sees chunk after chunk, for one parallel pass:
every chunk attends itself, the first x frames and what lies in the y frames
that end with it. See `ranges.py` for the form.
"""

import numpy as np


def sliding(
  frames: int, chunk: int, tokens: int, sink: int, window: int
) -> np.ndarray:
  """Block-causal attention in a memory.

  Args:
    frames: latent frames F of the clip; the last chunk may be shorter.
    chunk: latent frames per chunk.
    tokens: tokens per latent frame.
    sink: first latent frames, always seen.
    window: latent frames of the window, the current chunk included.

  Returns:
    Ranges `[2, F * tokens, 2]`.
  """
  _, end, oldest = _bounds(frames, chunk, sink, window)
  zero = np.zeros_like(end)
  return _ranges(
    tokens, (zero, np.minimum(sink, end)), (np.minimum(oldest, end), end)
  )


def sliding_teacher(
  frames: int, chunk: int, tokens: int, sink: int, window: int
) -> np.ndarray:
  """Mask for a sequence `[real clip | judged clip]` of 2 F frames.

  A real chunk sees real chunks in its memory. A judged chunk sees the real
  chunks before it in its memory, and itself (AAPT supplement F).

  Returns:
    Ranges `[3, 2 * F * tokens, 2]`.
  """
  start, end, oldest = _bounds(frames, chunk, sink, window)
  zero = np.zeros_like(end)
  nothing = zero, zero
  real = [
    (zero, np.minimum(sink, end)),
    (np.minimum(oldest, end), end),
    nothing,
  ]
  judged = [
    (zero, np.minimum(sink, start)),
    (np.minimum(oldest, start), start),
    (frames + start, frames + end),
  ]
  return np.concatenate([_ranges(tokens, *real), _ranges(tokens, *judged)], 1)


def _bounds(frames, chunk, sink, window):
  """Of each frame: where its chunk starts and ends, its window's oldest."""
  index = np.arange(frames)
  start = index // chunk * chunk
  oldest = np.maximum(sink, start + chunk - window)
  return start, np.minimum(start + chunk, frames), oldest


def _ranges(tokens, *bounds):
  """Frames `(first, end)` of every range -> tokens `[R, F * tokens, 2]`."""
  pairs = [np.repeat(np.stack(pair, -1), tokens, 0) for pair in bounds]
  return (tokens * np.stack(pairs)).astype(np.int32)
