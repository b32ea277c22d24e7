"""Builds a data set of the shapes world into a folder."""

import dataclasses
import pathlib

from jaxvid.data.shapes.clips import ClipSettings
from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    folder: where the data set goes, as `folder/shapes/<name>/1.0.0`.
    name: of the data set; other settings than that name's own mark it.
    clips: what it holds.
  """

  folder: str = 'data'
  name: str = 'short'
  clips: ClipSettings = dataclasses.field(default_factory=ClipSettings)


def run(config: Config) -> None:
  """Builds the data set, or finds it built, and prints where it is."""
  if not config.name.replace('_', '').replace('-', '').isalnum():
    raise UserError(f'name may hold letters, digits, - and _: {config.name!r}')
  if sum(getattr(config.clips, s) for s in ('train', 'validation', 'test')) < 1:
    raise UserError('the data set would be empty: set clips.train')
  folder = pathlib.Path(config.folder).expanduser()
  folder.mkdir(parents=True, exist_ok=True)
  from jaxvid.data.shapes import builder  # Slow, and not on GPU paths.

  built = builder.build(str(folder), config.name, config.clips)
  counts = ', '.join(
    f'{name} {split.num_examples}' for name, split in built.info.splits.items()
  )
  print(f'{built.data_path} ({counts})')
