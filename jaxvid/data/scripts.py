"""Clips of several shots: rendered, cached as latents, read with prompts.

In such a cache every clip has one caption per chunk; `loaders` reads caches
whose clips have one scene and several wordings of it.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.data import loaders
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes import script as script_lib
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError

STRIDE = 4  # frames per latent; the first latent holds one frame


def chunk_starts(latents: int, chunk: int) -> np.ndarray:
  """First frame of every chunk of a video, int `[n]`."""
  first = chunk * np.arange(-(-latents // chunk))
  return np.maximum(STRIDE * first - (STRIDE - 1), 0)


@dataclasses.dataclass(frozen=True)
class RenderedScripts:
  """Clips of several shots of the shapes world, drawn when asked for.

  Element i depends on the seed and i alone: `{'video': uint8 [F, H, W, 3],
  'captions': one per chunk, 'script': facts as JSON text}`.

  Attributes:
    settings: what scenes may show, and the size of the picture.
    frames: frames per clip F, 1 + 4 k.
    kind: of script, see `shapes.script.sample_script`.
    shots: per clip.
    chunk: latent frames per chunk.
    seed: of the scripts and captions.
    terse: captions leave open what to return to, see `sample_script`.
    size: number of clips.
  """

  settings: scene_lib.SceneSettings
  frames: int
  kind: str = 'returning'
  shots: int = 3
  chunk: int = 3
  seed: int = 0
  terse: bool = False
  size: int = 1 << 30

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> dict[str, Any]:
    script = self.script(index)
    latents = (self.frames + STRIDE - 1) // STRIDE
    owner = script_lib.shot_of(script, chunk_starts(latents, self.chunk))
    size = self.settings.height, self.settings.width
    return {
      'video': script_lib.render_script(script, None, *size),
      'captions': [script.shots[i].caption for i in owner],
      'script': json.dumps(dataclasses.asdict(script)),
    }

  def script(self, index: int) -> script_lib.Script:
    """What clip `index` shows."""
    rng = np.random.default_rng((self.seed, int(index)))
    return script_lib.sample_script(
      rng, self.kind, self.frames, self.settings, self.shots, self.terse
    )


def script_batches(
  folder: str,
  tokenizer: Tokenizer,
  *,
  batch: int,
  frames: int,
  chunk: int,
  text_drop: float,
  seed: int,
  state: Mapping[str, Any] | None = None,
  worker_count: int = 0,
) -> loaders.Batches:
  """Batches of clips with one prompt per chunk, from cached latents.

  Args:
    folder: of the cache; its clips have one caption per chunk.
    tokenizer: turns a caption into ids.
    batch: clips per batch.
    frames: latent frames F, the first ones of each clip; whole chunks.
    chunk: latent frames per chunk.
    text_drop: share of the clips whose prompts are to be left out.
    seed: of order and dropping.
    state: where to go on.
    worker_count: see `loaders.make_batches`.

  Returns:
    Batches of 'latents' float16 `[B, F, H, W, C]`, 'ids' int32 and 'mask'
    bool `[B, n, text_len]`, and 'dropped' bool `[B]`.

  Raises:
    UserError: no such cache, or its clips are cut into other chunks.
  """
  from jaxvid.data import latents

  sources = latents.open_shards(
    folder, None if state is None else state['shards']
  )
  first = sources[0][0]
  available = len(first['latents'])
  if frames % chunk or frames > available:
    raise UserError(
      f'clips of {frames} latent frames: {folder} holds {available}, and '
      f'whole chunks of {chunk} are needed'
    )
  said = len(latents.read_captions(first))
  if said != -(-available // chunk):
    raise UserError(
      f'{folder} has {said} captions for {available} latent frames, not one '
      f'for every chunk of {chunk}; see configs/shapes/latents.py:scripts'
    )

  def transform(example, rng):
    captions = latents.read_captions(example)[: frames // chunk]
    ids, mask = tokenizer(captions)
    return {
      'latents': example['latents'][:frames],
      'ids': ids,
      'mask': mask,
      'dropped': np.bool_(rng.random() < text_drop),
    }

  return loaders.make_batches(
    sources, batch, seed, state, transform, worker_count
  )
