"""Where prompts to train or sample on come from.

Sources are random-access sequences whose elements are lists of wordings.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvid.data import prompts
from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes import script
from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class PromptConfig:
  """Where prompts to train or sample on come from.

  Attributes:
    file: a list of prompts; empty: the next one.
    column: of the file, see `prompts.read_rows`.
    latents: cached latents whose captions are taken; empty: scenes.
    scenes: scenes of the shapes world, captioned on the fly, no end of them.
    seed: of the scenes.
    follow_ups: a list of what follows each prompt of `file`, line by line, for
      videos whose prompt changes; may be `file` itself. Scenes need none.
    follow_column: of that list.
  """

  file: str = ''
  column: str = ''
  latents: str = ''
  scenes: scene_lib.SceneSettings = dataclasses.field(
    default_factory=scene_lib.SceneSettings
  )
  seed: int = 0
  follow_ups: str = ''
  follow_column: str = 'follow_up'

  def __post_init__(self):
    if self.file and self.latents:
      raise UserError('give prompts.file or prompts.latents, not both')
    if self.follow_ups and not self.file:
      raise UserError('prompts.follow_ups go with prompts.file')


@dataclasses.dataclass(frozen=True)
class ShapesPrompts:
  """Captions of random scenes; element i depends on the seed and i alone.

  Attributes:
    settings: what scenes may show.
    seed: of scenes and wording.
    size: number of captions.
  """

  settings: scene_lib.SceneSettings
  seed: int = 0
  size: int = 1 << 30

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> list[str]:
    rng = np.random.default_rng((self.seed, int(index)))
    scene = scene_lib.sample_scene(rng, self.settings)
    return [captions_lib.caption(scene, int(rng.integers(2**31)))]


@dataclasses.dataclass(frozen=True)
class ShapesPairs(ShapesPrompts):
  """Captions before and after one thing has changed, worded alike."""

  def __getitem__(self, index: int) -> list[str]:
    rng = np.random.default_rng((self.seed, int(index)))
    for _ in range(900):
      scene = scene_lib.sample_scene(rng, self.settings)
      style = int(rng.integers(2**31))
      try:
        _, after, _ = script.follow_up(scene, rng, self.settings, style=style)
      except UserError:
        continue  # A scene that allows no such change.
      return [captions_lib.caption(scene, style), after]
    raise UserError(
      'found no scene in which anything changes; look at prompts.scenes'
    )


@dataclasses.dataclass(frozen=True)
class CachedPrompts:
  """Captions of cached latents.

  Attributes:
    source: one shard of the cache.
  """

  source: Any

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> list[str]:
    from jaxvid.data import latents

    return latents.read_captions(self.source[index])


def open_prompts(
  config: PromptConfig, count: int | None = None
) -> list[Sequence[list[str]]]:
  """Random-access sources of prompts.

  Args:
    config: where they come from.
    count: of cached latents, the first so many shards; None = all.

  Returns:
    Sources to be read as one; each element is a list of wordings.
  """
  if config.file:
    texts = prompts.read_prompts(config.file, config.column)
    return [[[text] for text in texts]]
  if config.latents:
    from jaxvid.data import latents

    shards = latents.open_shards(config.latents, count)
    return [CachedPrompts(shard) for shard in shards]
  return [ShapesPrompts(config.scenes, config.seed)]


def open_pairs(config: PromptConfig) -> list[Sequence[list[str]]]:
  """Random-access sources of (prompt, what follows it).

  Args:
    config: where they come from.

  Returns:
    Sources to be read as one; each element is a list of two texts.

  Raises:
    UserError: prompts without follow-ups, or not as many.
  """
  if config.latents:
    raise UserError('cached latents have no follow-up prompts; give a file')
  if not config.file:
    return [ShapesPairs(config.scenes, config.seed)]
  if not config.follow_ups:
    raise UserError(
      f'{config.file} needs prompts.follow_ups, what follows each prompt '
      '(configs/prompts.py:switch makes such a list)'
    )
  own = config.follow_ups.endswith(('.csv', '.tsv', '.jsonl', '.json'))
  column = config.follow_column if own else ''
  before = prompts.read_prompts(config.file, config.column)
  after = prompts.read_prompts(config.follow_ups, column)
  if len(before) != len(after):
    raise UserError(
      f'{config.follow_ups} holds {len(after)} follow-ups for '
      f'{len(before)} prompts'
    )
  return [[list(pair) for pair in zip(before, after, strict=True)]]
