"""Frames on the host: the stream's chunks, decoded as they come."""

import dataclasses
import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.stream.stream import Settings, State, chunk_ticks, jitted_step


@dataclasses.dataclass(frozen=True)
class Decoder:
  """A streaming decoder: latents in, uint8 frames out.

  Attributes:
    module: `jaxvid.models.vae` or `jaxvid.models.tae`; both offer
      `decode_chunk` and `init_state`.
    config: sizes, hashable, with a `time_factor`.
    params: its parameters.
  """

  module: types.ModuleType
  config: Any
  params: Any

  @property
  def padding(self) -> int:
    """Leading frames to drop at the start of a video: 3."""
    return self.config.time_factor - 1

  def init_state(self, latents: jax.Array):
    """State before a video with latents shaped like `[B, F, h, w, C]`."""
    batch, _, height, width, _ = latents.shape
    return self.module.init_state(self.config, batch, height, width)

  def __call__(self, latents: jax.Array, state, first: bool):
    """uint8 frames `[B, 4 F, H, W, 3]` and the next state."""
    run = _jitted_decode(self.module, self.config)
    return run(self.params, latents, state, first)


@functools.lru_cache(maxsize=16)
def _jitted_decode(module, config):
  def decode(params, latents, state, first):
    video, state = module.decode_chunk(config, params, latents, state, first)
    return to_uint8(video), state

  return jax.jit(decode, donate_argnums=2)


def to_uint8(video: jax.Array) -> jax.Array:
  """[-1, 1] -> 0..255, rounded and clipped."""
  scaled = (video.astype(jnp.float32) + 1) * 127.5
  return jnp.clip(jnp.round(scaled), 0, 255).astype(jnp.uint8)


def to_float(video: np.ndarray) -> np.ndarray:
  """0..255 -> [-1, 1], float32."""
  return video.astype(np.float32) / 127.5 - 1


def decode(
  decoder: Decoder, latents: jax.Array, chunk: int = 3
) -> tuple[np.ndarray, Any]:
  """Decodes finished latents from the start of a video, piece by piece.

  Args:
    decoder: any.
    latents: `[B, F, h, w, C]`.
    chunk: latents per call; a shorter first piece takes the remainder.

  Returns:
    uint8 `[B, 4 F - 3, H, W, 3]` and the decoder's state after them.
  """
  count = latents.shape[1]
  rest = count % chunk
  sizes = ([rest] if rest else []) + [chunk] * (count // chunk)
  pieces, at, state = [], 0, decoder.init_state(latents)
  for size in sizes:
    video, state = decoder(latents[:, at : at + size], state, at == 0)
    pieces.append(np.asarray(video)[:, decoder.padding if at == 0 else 0 :])
    at += size
  return np.concatenate(pieces, 1), state


def frames(
  settings: Settings,
  params,
  state: State,
  decoder: Decoder,
  num_chunks: int | None = None,
  decoder_state: Any = None,
) -> Iterator[np.ndarray]:
  """Streams a video: uint8 frames of one chunk after the other.

  While the caller shows chunk i, chunk i + 1 is already being computed.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: from `stream.init`, possibly prefilled; consumed.
    decoder: of the latents.
    num_chunks: when to stop; None goes on for ever.
    decoder_state: where the video goes on after given latents (see
      `decode`); None starts a video, whose first chunk is 3 frames shorter.

  Yields:
    `[B, n, H, W, 3]` uint8, n = 4 x chunk (less 3 at the very start).
  """
  step, index = jitted_step(settings), 0
  first = decoder_state is None
  waiting = None
  while num_chunks is None or index < num_chunks:
    ticks = chunk_ticks(settings.schedule, index)
    state, latents = step(params, state, ticks)
    if decoder_state is None:
      decoder_state = decoder.init_state(latents)
    video, decoder_state = decoder(latents, decoder_state, first)
    if index == 0:
      # The first frames leave before anything else is started.
      yield np.asarray(video)[:, decoder.padding if first else 0 :]
    else:
      video.copy_to_host_async()
      if waiting is not None:
        yield np.asarray(waiting)
      waiting = video
    first, index = False, index + 1
  if waiting is not None:
    yield np.asarray(waiting)
