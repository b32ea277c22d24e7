"""Videos that change while they play: scripts, typed prompts, saved streams.

A script says which prompt begins when; with `switch.live` every line typed
while the video is made is the next prompt (`/save [file]` keeps the stream,
`/quit` ends it). What took effect when is written beside the video, as a
script that makes the same video again.
"""

import contextlib
import dataclasses
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data import prompt_script
from jaxvid.data.prompt_script import Cue
from jaxvid.errors import UserError
from jaxvid.stream import stream, switch
from jaxvid.stream.session import Session, Snapshot
from jaxvid.tasks import player, state_file
from jaxvid.tasks.progress import say

if TYPE_CHECKING:
  from jaxvid.tasks.generate import Config, Request
  from jaxvid.tasks.player import Model, Playback

FPS = prompt_script.FPS
AHEAD = 0.5  # seconds that a live video may be ahead of the clock
Encode = Callable[[str], jax.Array]


@dataclasses.dataclass
class Plan:
  """What is to happen when; changes while a video is made.

  Attributes:
    cues: chunk -> prompt.
    fresh: the video begins with the stream, see `prompt_script.latent_at`.
    said: prompts that took effect.
    shown: frames handed out, by earlier runs too.
  """

  cues: dict[int, str]
  fresh: bool
  said: list[Cue]
  shown: int = 0


def load(config: 'Config', request: 'Request') -> tuple['Model', Encode]:
  """A model for a `Session` of one's own, and its text encoder.

  Args:
    config: as of the task.
    request: from `generate.check(config)`.

  Returns:
    The model, whose text is the first prompt, and a function from a prompt to
    what `stream.encode_prompt` takes, `[1, T, D]`.
  """
  model, encode, _, _ = player.load(config, request)
  return model, lambda prompt: encode([prompt, config.negative_prompt])[:1]


def steered(
  config: 'Config',
  request: 'Request',
  model: 'Model',
  encode: Callable[[Sequence[str]], jax.Array],
  given: jax.Array | None,
) -> 'Playback':
  """A stream whose prompt may change, or that is kept; arguments of `play`."""
  state, before, decoder_state = player.begin_stream(model, given)
  player.compile_stream(model, state, request.num_chunks)

  def one(prompt: str) -> jax.Array:
    # The text encoder's program is for two prompts at a time.
    return encode([prompt, config.negative_prompt])[:1]

  frames, total = play(config, request, model, one, given, state, decoder_state)
  if config.video:
    before = player.given_video(config, model)
  return player.Playback(before, frames, total=total)


def play(
  config: 'Config',
  request: 'Request',
  model: 'Model',
  encode: Encode,
  given: jax.Array | None,
  state: stream.State,
  decoder_state: Any,
) -> tuple[Iterator[np.ndarray], int]:
  """Starts or resumes a stream that may be steered.

  Args:
    config: of the task.
    request: what was found possible.
    model: on the device; its text is that of the first prompt.
    encode: a prompt -> encoded `[1, T, D]`.
    given: latents that the stream goes on from.
    state: of the stream, with these in memory.
    decoder_state: after these; None starts a video.

  Returns:
    Frames uint8 `[1, n, H, W, 3]` as they come, and how many there will be.

  Raises:
    UserError: a saved stream that does not fit.
  """
  settings = model.settings
  past = switch.new_past(settings, state)
  if given is not None:
    past = switch.remember(settings, past, state, given)
  plan = Plan(dict(request.cues), given is None, [])
  fingerprint = ''
  if config.state.save or config.state.resume:
    params = model.params, model.decoder.params
    fingerprint = state_file.fingerprint(*params)
  options: dict[str, Any] = {
    'stop': request.num_chunks,
    'switching': config.switch.config(),
  }
  parts = settings, model.params, model.decoder
  if config.state.resume:
    snapshot = _resumed(config, model, state, past, fingerprint, plan)
    session = Session.resume(*parts, snapshot, **options)
  else:
    plan.said = [Cue(request.prompt, 0.0, '0 s')]
    session = Session(
      *parts, state, past=past, decoder_state=decoder_state, **options
    )
  if plan.cues or config.switch.live:
    # Now, so that the first change does not make the video wait.
    texts = model.text, model.negative
    session.compile(stream.encode_prompt(*parts[:2], *texts))
  total = request.num_frames - plan.shown
  if total <= 0:
    raise UserError(
      f'{config.state.resume} holds {plan.shown / FPS:g} s of video already; '
      f'ask for more than {config.seconds:g} seconds'
    )
  return _frames(config, request, model, session, encode, plan, fingerprint), (
    total
  )


def _resumed(
  config: 'Config', model: 'Model', state, past, fingerprint: str, plan: Plan
) -> Snapshot:
  """The saved stream; `plan` learns what was to come."""
  saved = state_file.load(config.state.resume)
  settings = model.settings
  latents = jnp.zeros(stream.latent_shape(settings, state))
  waiting = latents.astype(settings.dtype)
  pending = waiting if saved.head['pending'] else None
  template = Snapshot(
    state.replace(key=jax.random.key_data(state.key), pending=pending),
    past,
    model.decoder.init_state(latents),
    np.zeros((1, 0, 0, 0, 3), np.uint8),
    chunk=0,
    first=False,
  )
  snapshot = state_file.restore(saved, settings, fingerprint, template)
  more = saved.more
  plan.shown, plan.fresh = more['shown'], more['fresh']
  plan.said = [Cue(*cue) for cue in more['said']]
  if not plan.cues:
    plan.cues |= {int(i): text for i, text in more['cues'].items()}
  plan.cues = {i: p for i, p in plan.cues.items() if i >= snapshot.chunk}
  if config.prompt:
    plan.cues[snapshot.chunk] = config.prompt
  return snapshot


def _frames(
  config: 'Config',
  request: 'Request',
  model: 'Model',
  session: Session,
  encode: Encode,
  plan: Plan,
  fingerprint: str,
) -> Iterator[np.ndarray]:
  """Frames as they come; prompts, saving and the clock between chunks."""
  typed = Typed() if config.switch.live else None
  script = request.output.with_suffix('.script.jsonl')
  began, saved_at, before = time.perf_counter(), time.perf_counter(), plan.shown

  def keep(path: str = '') -> None:
    _save(path or config.state.save, model, session, plan, fingerprint)

  ask, session.before = _prompts(model, session, encode, plan)
  with _stopped() as received:
    going = True
    while going:
      for line in typed.lines() if typed else ():
        match line.split():
          case ['/quit']:
            going = False
          case ['/save', *path]:
            keep(path[0] if path else '')
          case _:
            ask(line)
      piece = next(session, None) if going else None
      if piece is None:
        break
      left = request.num_frames - plan.shown
      if piece.shape[1] > left:
        session.push_back(piece[:, left:])
        piece, going = piece[:, :left], False
      plan.shown += piece.shape[1]
      yield piece
      now = time.perf_counter()
      if received:
        break
      if config.state.every and now - saved_at >= config.state.every:
        keep()
        saved_at = now
      if typed:
        ahead = (plan.shown - before) / FPS - (now - began)
        time.sleep(max(0.0, ahead - AHEAD))
    if config.state.save:
      keep()
    if len(plan.said) > 1 or typed:
      prompt_script.write_script(script, plan.said)
      print(f'script: {script}')
    _report(session, time.perf_counter() - began)
    if received:
      raise KeyboardInterrupt


def _prompts(
  model: 'Model', session: Session, encode: Encode, plan: Plan
) -> tuple[Callable[[str], None], Callable[[int], None]]:
  """Asks for a prompt; and lets the one that is due at a chunk take effect."""
  # Those of the script now, so that the stream need not wait for them.
  known = {prompt: encode(prompt) for prompt in set(plan.cues.values())}

  def ask(prompt: str) -> None:
    if session.stop is not None and session.chunk >= session.stop:
      say(f'the video ends before this takes effect: {prompt}')
      return
    known[prompt] = encode(prompt)
    plan.cues[session.chunk] = prompt  # Kept by a copy made before then, too.

  def due(chunk: int) -> None:
    prompt = plan.cues.pop(chunk, None)
    if prompt is None:
      return
    parts = model.settings, model.params
    text = stream.encode_prompt(*parts, known[prompt], model.negative)
    session.switch(text)
    latent = float(chunk * model.settings.memory.chunk)
    seconds = prompt_script.seconds_at(latent, plan.fresh)
    cue = Cue(prompt, latent, f'{seconds:g} s')
    plan.said = [c for c in plan.said if c.latent < latent] + [cue]
    say(f'from {cue.when}: {prompt}')

  return ask, due


def _save(path: str, model, session: Session, plan: Plan, fingerprint) -> None:
  """Writes the stream, unless nobody said where."""
  if not path:
    say('nothing saved: say where, /save FILE or --config.state.save=FILE')
    return
  snapshot = session.snapshot()
  if not fingerprint:
    fingerprint = state_file.fingerprint(model.params, model.decoder.params)
  more = {
    'shown': plan.shown,
    'fresh': plan.fresh,
    'said': plan.said,
    'cues': plan.cues,
  }
  state_file.save(path, snapshot, model.settings, fingerprint, more)
  say(f'stream saved after {plan.shown / FPS:.1f} s: {path}')


def _report(session: Session, seconds: float) -> None:
  """What the switches cost."""
  if not session.changes:
    return
  # The first one holds the compilation.
  each = ', '.join(f'{change.seconds:.2f}' for change in session.changes)
  total = sum(change.seconds for change in session.changes)
  say(
    f'{len(session.changes)} prompt changes took {each} s, '
    f'{100 * total / max(seconds, 1e-9):.1f} % of the time'
  )


class Typed:
  """Lines of standard input, read while something else goes on."""

  def __init__(self, source=None):
    self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
    source = source or sys.stdin
    say('type a prompt and press Enter; /save [FILE], /quit')
    threading.Thread(target=self._read, args=(source,), daemon=True).start()

  def _read(self, source) -> None:
    with contextlib.suppress(ValueError):  # Closed at the end.
      for line in source:
        self._queue.put(line)

  def lines(self) -> Iterator[str]:
    """What was typed since the last time; empty lines are left out."""
    while not self._queue.empty():
      line = self._queue.get().strip()
      if line:
        yield line


@contextlib.contextmanager
def _stopped() -> Iterator[list[int]]:
  """Yields a list that receives the number of a stop signal.

  The chunk under way is finished, so that what is saved is whole; a second
  signal interrupts at once.
  """
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield received
    return

  def remember(number, frame):
    del frame
    if received:
      raise KeyboardInterrupt
    received.append(number)

  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.signal(number, remember) for number in numbers}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
