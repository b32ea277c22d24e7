"""A running stream that may be steered: other prompts, a copy at any moment.

    session = Session(settings, params, decoder, state, stop=40)
    for frames in session: ...          # uint8 [B, n, H, W, 3]
    session.switch(stream.encode_prompt(settings, params, text))
    copy = session.snapshot()

While frames of chunk i are handed out, chunk i + 1 has been started; a new
prompt is for the chunk after that.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxvid.models.dit import TextKV
from jaxvid.stream import stream, switch
from jaxvid.stream.frames import Decoder, start_copy
from jaxvid.stream.state import Settings, State, chunk_ticks
from jaxvid.stream.switch import Past, SwitchConfig


@struct.dataclass
class Snapshot:
  """All that the rest of a video depends on, at a chunk boundary.

  Attributes:
    state: the stream.
    past: its latents.
    decoder: the decoder's state.
    waiting: frames that are finished and not handed out yet
      `[B, n, H, W, 3]`; n may be 0.
    chunk: chunks finished.
    first: the video has not begun.
    starts: chunks that the schedule began with.
  """

  state: State
  past: Past
  decoder: Any
  waiting: np.ndarray
  chunk: int = struct.field(pytree_node=False)
  first: bool = struct.field(pytree_node=False)
  starts: tuple[int, ...] = struct.field(pytree_node=False, default=(0,))


class Change(NamedTuple):
  """A prompt that took effect.

  Attributes:
    chunk: the first one with the new prompt.
    seconds: that it took, the text apart.
  """

  chunk: int
  seconds: float


class Session(Iterator[np.ndarray]):
  """A stream of frames; `switch` and `snapshot` may be called by any thread.

  Attributes:
    chunk: the next one to be started.
    stop: chunks to make in all; None: no end.
    changes: of the prompt, in order.
    before: called with the number of every chunk about to be started; may
      call `switch`.
  """

  def __init__(
    self,
    settings: Settings,
    params: Any,
    decoder: Decoder,
    state: State,
    *,
    stop: int | None = None,
    switching: SwitchConfig | None = None,
    past: Past | None = None,
    decoder_state: Any = None,
    chunk: int = 0,
    starts: Sequence[int] = (0,),
    waiting: np.ndarray | None = None,
  ):
    """A stream from its beginning, or from a snapshot.

    Args:
      settings: of the stream.
      params: the transformer's parameters.
      decoder: of the latents.
      state: from `stream.init`, possibly prefilled; consumed.
      stop: chunks to make in all; None: no end.
      switching: what a new prompt does to memory and ticks.
      past: latents in memory, of a stream that has some.
      decoder_state: where the video goes on; None starts one.
      chunk: chunks finished before.
      starts: chunks that the schedule began with.
      waiting: frames to hand out first.
    """
    self._settings, self._params, self._decoder = settings, params, decoder
    self._state = state
    self._past = past or switch.new_past(settings, state)
    self._first = decoder_state is None
    if decoder_state is None:
      latents = jnp.zeros(stream.latent_shape(settings, state))
      decoder_state = decoder.init_state(latents)
    self._decoder_state = decoder_state
    self._switching = switching or SwitchConfig()
    self._text: TextKV | None = None
    self._waiting: Any = waiting
    # On a CPU the next chunk would take time from the first frames.
    self._alone = chunk == 0 and jax.default_backend() == 'cpu'
    self._lock = threading.RLock()
    self.chunk, self.stop, self._starts = chunk, stop, tuple(starts)
    self.changes: list[Change] = []
    self.before: Callable[[int], Any] | None = None

  @classmethod
  def resume(
    cls,
    settings: Settings,
    params: Any,
    decoder: Decoder,
    snapshot: Snapshot,
    stop: int | None = None,
    switching: SwitchConfig | None = None,
  ) -> 'Session':
    """Goes on from a snapshot, with the same frames as without it."""
    # Copies: the session's own are written in place.
    parts = snapshot.state, snapshot.past, snapshot.decoder
    state, past, decoder_state = jax.tree.map(jnp.array, parts)
    return cls(
      settings,
      params,
      decoder,
      state.replace(key=jax.random.wrap_key_data(state.key)),
      stop=stop,
      switching=switching,
      past=past,
      decoder_state=None if snapshot.first else decoder_state,
      chunk=snapshot.chunk,
      starts=snapshot.starts,
      waiting=snapshot.waiting if snapshot.waiting.shape[1] else None,
    )

  def __next__(self) -> np.ndarray:
    """Frames of the next chunk; StopIteration after the last."""
    with self._lock:
      if self._waiting is None:
        if self._ended():
          raise StopIteration
        self._start()
      video, self._waiting = self._waiting, None
      if not self._alone and not self._ended():
        self._start()
      self._alone = False
    return np.asarray(video)

  def switch(self, text: TextKV) -> int:
    """Changes the prompt from the next chunk on that is started.

    Args:
      text: from `stream.encode_prompt`.

    Returns:
      That chunk.
    """
    with self._lock:
      self._text = text
      return self.chunk

  def compile(self, text: TextKV) -> None:
    """Compiles what `switch` will run, so that the first one need not wait.

    Args:
      text: of any prompt, from `stream.encode_prompt`.

    Raises:
      UserError: a model whose memory cannot be made anew.
    """
    with self._lock:
      if self._switching.cache in ('recache', 'upstream'):
        full = self._settings.memory.capacity
        program, inputs = switch.recache_program(*self._switched(text), full)
        program.lower(*inputs).compile()

  def snapshot(self) -> Snapshot:
    """A copy on the host; the session goes on untouched."""
    with self._lock:
      waiting = self._waiting
      if waiting is None:
        shape = self._no_frames()
        waiting = np.zeros(shape, np.uint8)
      state = self._state.replace(key=jax.random.key_data(self._state.key))
      parts = state, self._past, self._decoder_state, waiting
      host = jax.tree.map(np.array, parts)
      return Snapshot(
        *host, chunk=self.chunk, first=self._first, starts=self._starts
      )

  def push_back(self, frames: np.ndarray) -> None:
    """Gives back frames that were not shown, to be handed out again."""
    with self._lock:
      rest = () if self._waiting is None else (np.asarray(self._waiting),)
      self._waiting = np.concatenate([frames, *rest], 1)

  def _no_frames(self) -> tuple[int, ...]:
    batch, _, height, width, _ = stream.latent_shape(
      self._settings, self._state
    )
    return (batch, 0, 8 * height, 8 * width, 3)

  def _ended(self) -> bool:
    return self.stop is not None and self.chunk >= self.stop

  def _start(self) -> None:
    """Enqueues the next chunk and its frames."""
    settings = self._settings
    if self.before is not None:
      self.before(self.chunk)
    if self._text is not None:
      self._change(self._text)
      self._text = None
    ticks = chunk_ticks(settings.schedule, self.chunk - self._starts[-1])
    step = stream.jitted_step(settings)
    self._state, latents = step(self._params, self._state, ticks)
    remember = switch.jitted_remember(settings)
    self._past = remember(self._past, self._state, latents)
    video, self._decoder_state = self._decoder(
      latents, self._decoder_state, self._first
    )
    skip = self._decoder.padding if self._first else 0
    self._waiting, self._first = start_copy(video[:, skip:]), False
    self.chunk += 1

  def _switched(self, text: TextKV):
    """Arguments of `switch.switch`."""
    parts = self._settings, self._params, self._state, self._past
    return *parts, text, self._switching, self._starts

  def _change(self, text: TextKV) -> None:
    jax.block_until_ready(self._state.memory)
    began = time.perf_counter()
    self._state, self._past = switch.switch(*self._switched(text))
    jax.block_until_ready(self._state.memory)
    if self._switching.again:
      self._starts += (self.chunk,)
    change = Change(self.chunk, time.perf_counter() - began)
    self.changes.append(change)
