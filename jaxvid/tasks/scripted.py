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
from jaxvid.stream import stream
from jaxvid.stream.session import Session
from jaxvid.tasks import generate

if TYPE_CHECKING:
  from jaxvid.tasks.sampler import Sampler


class Story(NamedTuple):
  """What one video is to show.

  Attributes:
    prompts: one per chunk.
    shots: (first frame, meaning of the caption) of every shot.
  """

  prompts: tuple[str, ...]
  shots: tuple[tuple[int, Spec], ...]


def stories(
  config: generate.Config,
  kind: str,
  shots: int,
  objects: int,
  count: int,
  seed: int,
) -> list[Story]:
  """Scripts of the shapes world that training never showed.

  Args:
    config: of the videos, for their length and chunks.
    kind: 'follow_up' or 'returning', see `shapes.script`.
    shots: per video.
    objects: per scene.
    count: number of scripts.
    seed: of all of them.
  """
  frames, latents = generate.count_frames(config)
  starts = data.chunk_starts(latents, config.chunk)
  told = []
  for script in drawn(kind, frames, shots, objects, count, seed):
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
      )
    )
  return told


def drawn(
  kind: str, frames: int, shots: int, objects: int, count: int, seed: int
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
    yield script_lib.sample_script(rng, kind, frames, settings, shots)


def clips(
  sampler: 'Sampler', told: Sequence[Story], batch: int, seed: int
) -> Iterator[np.ndarray]:
  """Videos uint8 `[F, H, W, 3]` in the order of the stories.

  A change of the prompt takes effect at its chunk, for memory and ticks as
  `sampler.config.switch` says.
  """
  if sampler.request.schedule.bidirectional:
    raise UserError('scripts need a stream; schedule=teacher makes whole clips')
  for start in range(0, len(told), batch):
    some = list(told[start : start + batch])
    full = some + some[-1:] * (batch - len(some))
    key = jax.random.fold_in(jax.random.key(seed), start)
    columns = list(zip(*(story.prompts for story in full), strict=True))
    videos = np.concatenate(list(steered(sampler, columns, key)), 1)
    yield from videos[: len(some), : sampler.request.num_frames]


def steered(
  sampler: 'Sampler', columns: Sequence[Sequence[str]], key: jax.Array
) -> Iterator[np.ndarray]:
  """Videos side by side whose prompts change, chunk by chunk.

  Args:
    sampler: the model; its config says what a change does.
    columns: the prompts of every chunk, one per video.
    key: of the noise.

  Returns:
    Frames uint8 `[B, n, H, W, 3]` of each chunk.
  """
  parts = sampler.settings, sampler.params
  text, negative = sampler.embed(columns[0])
  session = Session(
    *parts,
    sampler.decoder,
    stream.init(*parts, text, key, negative),
    stop=len(columns),
    switching=sampler.config.switch.config(),
  )

  def due(i: int) -> None:
    if i and columns[i] != columns[i - 1]:
      told = sampler.embed(columns[i])
      session.switch(stream.encode_prompt(*parts, *told))

  session.before = due
  return session
