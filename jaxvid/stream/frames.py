"""Frames on the host: the stream's chunks, decoded as they come.

Everything is only enqueued until frames are asked for: while those of chunk i
travel to the host, chunk i + 1 is being computed.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
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
      `decode_chunk`, `init_state` and `one_program`.
    config: sizes, hashable, with a `time_factor`.
    params: its parameters; on `device` if there is one.
    device: where it runs, if not where the latents are: decoding of a chunk
      and ticks of the next then run at the same time.
  """

  module: types.ModuleType
  config: Any
  params: Any
  device: Any = None

  @property
  def padding(self) -> int:
    """Leading frames to drop at the start of a video: 3."""
    return self.config.time_factor - 1

  def init_state(self, latents: jax.Array):
    """State before a video with latents shaped like `[B, F, h, w, C]`."""
    batch, _, height, width, _ = latents.shape
    state = self.module.init_state(self.config, batch, height, width)
    return self._here(state)

  def __call__(self, latents: jax.Array, state, first: bool):
    """uint8 frames `[B, 4 F, H, W, 3]` and the next state; never waits."""
    start = first and not self.module.one_program(self.config)
    run = _jitted_decode(self.module, self.config, start)
    return run(self.params, self._here(latents), state)

  def compile(self, latents: jax.Array) -> None:
    """Runs what decodes the start of a video, and the rest of it."""
    state = self.init_state(latents)
    for first in (True, False):
      video, state = self(latents, state, first)
    video.block_until_ready()

  def _here(self, tree):
    return tree if self.device is None else jax.device_put(tree, self.device)


@functools.lru_cache(maxsize=16)
def _jitted_decode(module, config, first: bool):
  """Two programs, since a choice made on a GPU would make the host wait."""

  def decode(params, latents, state):
    video, state = module.decode_chunk(config, params, latents, state, first)
    return to_uint8(video), state

  return jax.jit(decode, donate_argnums=2, compiler_options=_options())


def _options() -> dict[str, bool] | None:
  # Without it XLA turns 3-D convolutions round to channels first.
  on_gpu = jax.default_backend() == 'gpu'
  return {'xla_gpu_force_conv_nhwc': True} if on_gpu else None


def start_copy(video: jax.Array, pinned: bool | None = None) -> jax.Array:
  """Starts the copy to the host; `np.asarray` of the result ends it.

  Args:
    video: on any device.
    pinned: through page-locked memory, which is many times faster from a GPU;
      None: where there is any and the device is not the host itself.
  """
  device = next(iter(video.devices()))
  if pinned is None:
    kinds = {memory.kind for memory in device.addressable_memories()}
    pinned = device.platform != 'cpu' and 'pinned_host' in kinds
  if pinned:
    place = video.sharding.with_memory_kind('pinned_host')
    video = jax.device_put(video, place)
  video.copy_to_host_async()
  return video


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
    pieces.append(start_copy(video))
    if len(pieces) > 1:  # Frees the device, which has more to do already.
      pieces[-2] = np.asarray(pieces[-2])
    at += size
  video = np.concatenate(list(map(np.asarray, pieces)), 1)
  return video[:, decoder.padding :], state


def frames(
  settings: Settings,
  params,
  state: State,
  decoder: Decoder,
  num_chunks: int | None = None,
  decoder_state: Any = None,
  step: Callable | None = None,
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
    step: the chunk function if it was prepared; None: `jitted_step`.

  Yields:
    `[B, n, H, W, 3]` uint8, n = 4 x chunk (less 3 at the very start).
  """
  step, index = step or jitted_step(settings), 0
  first = decoder_state is None
  pending = []
  while num_chunks is None or index < num_chunks:
    ticks = chunk_ticks(settings.schedule, index)
    state, latents = step(params, state, ticks)
    if decoder_state is None:
      decoder_state = decoder.init_state(latents)
    video, decoder_state = decoder(latents, decoder_state, first)
    pending.append((start_copy(video), decoder.padding if first else 0))
    # A GPU works through its queue in order. On a CPU the next chunk would
    # take time from the first frames, so these leave first.
    alone = index == 0 and jax.default_backend() == 'cpu'
    if len(pending) > 1 or alone:
      video, skip = pending.pop(0)
      yield np.asarray(video)[:, skip:]
    first, index = False, index + 1
  for video, skip in pending:
    yield np.asarray(video)[:, skip:]
