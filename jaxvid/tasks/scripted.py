"""Videos of scripts for measuring: many side by side, prompts by chunk."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxvid.data import scripts as data
from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes import script as script_lib
from jaxvid.data.shapes.captions import Spec
from jaxvid.errors import UserError
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, switch
from jaxvid.stream.session import Session
from jaxvid.tasks import generate

if TYPE_CHECKING:
  from jaxvid.tasks.sampler import Sampler


class Story(NamedTuple):
  """What one video is to show.

  Attributes:
    prompts: one per chunk.
    shots: (first frame, meaning of the caption) of every shot.
    script: what the world shows.
  """

  prompts: tuple[str, ...]
  shots: tuple[tuple[int, Spec], ...]
  script: script_lib.Script


def stories(
  config: generate.Config,
  kind: str,
  shots: int,
  objects: int,
  count: int,
  seed: int,
  terse: bool = False,
) -> list[Story]:
  """Scripts of the shapes world that training never showed.

  Args:
    config: of the videos, for their length and chunks.
    kind: 'follow_up' or 'returning', see `shapes.script`.
    shots: per video.
    objects: per scene.
    count: number of scripts.
    seed: of all of them.
    terse: captions leave open what to return to, see `sample_script`.
  """
  frames, latents = generate.count_frames(config)
  starts = data.chunk_starts(latents, config.chunk)
  told: list[Story] = []
  for script in drawn(kind, frames, shots, objects, count, seed, terse):
    owner = script_lib.shot_of(script, starts)
    specs = [captions_lib.parse(shot.caption) for shot in script.shots]
    if None in specs:
      continue
    told.append(
      Story(
        tuple(script.shots[j].caption for j in owner),
        tuple(
          (shot.start, spec)
          for shot, spec in zip(script.shots, specs, strict=True)
          if spec is not None
        ),
        script,
      )
    )
  return told


def drawn(
  kind: str,
  frames: int,
  shots: int,
  objects: int,
  count: int,
  seed: int,
  terse: bool = False,
) -> Iterator[script_lib.Script]:
  """The scripts behind `stories`, whose arguments these are."""
  if objects not in (1, 2, 3):
    raise UserError(f'objects must be 1, 2 or 3, not {objects}')
  settings = scene_lib.SceneSettings(
    split='heldout' if objects == 1 else 'all',
    counts=tuple(float(n + 1 == objects) for n in range(objects)),
    pan_probability=0.0,
  )
  for i in range(count):
    rng = np.random.default_rng((seed, objects, i))
    yield script_lib.sample_script(rng, kind, frames, settings, shots, terse)


def clips(
  sampler: 'Sampler',
  told: Sequence[Story],
  batch: int,
  seed: int,
  opening: int = 0,
) -> Iterator[np.ndarray]:
  """Videos uint8 `[F, H, W, 3]` in the order of the stories.

  A change of the prompt takes effect at its chunk, for memory and ticks as
  `sampler.config.switch` says.

  Args:
    sampler: the model.
    told: what the videos are to show.
    batch: videos made side by side.
    seed: of the noise.
    opening: chunks of the true video that each begins with, within its first
      shot; so it shows what its caption does not say.
  """
  if sampler.request.schedule.bidirectional:
    raise UserError('scripts need a stream; schedule=teacher makes whole clips')
  chunk = sampler.config.chunk
  frames = max(0, data.STRIDE * (chunk * opening - 1) + 1)
  for story in told if opening else ():
    if len(story.shots) > 1 and frames > story.shots[1][0]:
      raise UserError(f'opening={opening} goes beyond the first shot')
  encode = sampler.encoder() if opening else None
  for start in range(0, len(told), batch):
    some = list(told[start : start + batch])
    full = some + some[-1:] * (batch - len(some))
    key = jax.random.fold_in(jax.random.key(seed), start)
    columns = list(zip(*(story.prompts for story in full), strict=True))
    given = None
    if encode is not None:
      true = (
        script_lib.render_script(story.script, range(frames), *sampler.size)
        for story in full
      )
      given = encode(np.stack(list(true)))
    videos = np.concatenate(list(steered(sampler, columns, key, given)), 1)
    yield from videos[: len(some), : sampler.request.num_frames]


def steered(
  sampler: 'Sampler',
  columns: Sequence[Sequence[str]],
  key: jax.Array,
  given: jax.Array | None = None,
) -> Iterator[np.ndarray]:
  """Videos side by side whose prompts change, chunk by chunk.

  Args:
    sampler: the model; its config says what a change does.
    columns: the prompts of every chunk, one per video.
    key: of the noise.
    given: latents of the first chunks `[B, F, h, w, C]`, whole chunks under
      one prompt.

  Yields:
    Frames uint8 `[B, n, H, W, 3]` of each chunk; those given come at once.
  """
  parts = sampler.settings, sampler.params
  text, negative = sampler.embed(columns[0])
  state = stream.init(*parts, text, key, negative)
  past, after, known = None, None, 0
  if given is not None:
    shown, after = frames_lib.decode(sampler.decoder, given)
    yield shown
    state = stream.prefill(*parts, state, given)
    past = switch.new_past(sampler.settings, state)
    past = switch.remember(sampler.settings, past, state, given)
    known = given.shape[1] // sampler.config.chunk
  session = Session(
    *parts,
    sampler.decoder,
    state,
    stop=len(columns) - known,
    switching=sampler.config.switch.config(),
    past=past,
    decoder_state=after,
  )

  def due(i: int) -> None:
    i += known
    if i and columns[i] != columns[i - 1]:
      told = sampler.embed(columns[i])
      session.switch(stream.encode_prompt(*parts, *told))

  session.before = due
  yield from session
