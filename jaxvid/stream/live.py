"""A live stream: `state, frames = step(model, state)`, one chunk at a time.

For callers that look at every frame before they ask for the next one, a game
or a camera: nothing is computed ahead, so whatever changes between two steps
shows in the very next frames. `State.seconds` is what the step took, frames on
the host included. To watch, `stream.frames` is faster.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream
from jaxvid.stream.frames import Decoder
from jaxvid.stream.stream import Settings


@dataclasses.dataclass(frozen=True)
class Live:
  """What streams.

  Attributes:
    settings: of the stream.
    params: the transformer's parameters.
    decoder: of its latents.
  """

  settings: Settings
  params: Any
  decoder: Decoder


@dataclasses.dataclass(frozen=True)
class LiveState:
  """Between two steps; every step consumes the state that it is given.

  Attributes:
    stream: see `stream.State`.
    decoder: its state; None before the first frame.
    index: of the next chunk.
    seconds: what the last step took.
  """

  stream: stream.State
  decoder: Any = None
  index: int = 0
  seconds: float = 0.0


def start(
  model: Live,
  text: jax.Array,
  key: jax.Array,
  given: jax.Array | None = None,
) -> tuple[LiveState, np.ndarray | None]:
  """A stream before its first step.

  Args:
    model: what streams.
    text: encoded prompts `[B, T, D]`.
    key: of all noise.
    given: latents that it starts from `[B, n, h, w, C]`: a first frame, or a
      video that goes on.

  Returns:
    The state, and the given frames, uint8 `[B, 4 n - 3, H, W, 3]`.
  """
  settings, params = model.settings, model.params
  state = stream.init(settings, params, text, key)
  if given is None:
    return LiveState(state), None
  shown, decoder = frames_lib.decode(model.decoder, given)
  return LiveState(
    stream.prefill(settings, params, state, given), decoder
  ), shown


def step(model: Live, state: LiveState) -> tuple[LiveState, np.ndarray]:
  """The next chunk.

  Returns:
    The state after it, and uint8 frames `[B, n, H, W, 3]`: 4 per latent, 3
    less at the beginning of a video.
  """
  began = time.perf_counter()
  ticks = stream.chunk_ticks(model.settings.schedule, state.index)
  run = stream.jitted_step(model.settings)
  following, latents = run(model.params, state.stream, ticks)
  first, decoder = state.decoder is None, state.decoder
  if first:
    decoder = model.decoder.init_state(latents)
  video, decoder = model.decoder(latents, decoder, first)
  frames = np.asarray(video)[:, model.decoder.padding if first else 0 :]
  seconds = time.perf_counter() - began
  return LiveState(following, decoder, state.index + 1, seconds), frames


def latency(seconds: Sequence[float]) -> dict[str, float]:
  """Median and 99th percentile of steps, in ms; their number."""
  p50, p99 = (float(np.percentile(seconds, at)) * 1000 for at in (50, 99))
  return {'p50_ms': p50, 'p99_ms': p99, 'steps': len(seconds)}
