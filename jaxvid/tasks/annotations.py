"""Turns the annotations of LV-Bench, or your own, into a TFDS data set."""

import dataclasses
import pathlib

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    source: .json or .jsonl with the captions of every video.
    folder: where the data set goes, as `folder/lv_bench/<name>_<digest>/`.
    name: of the data set.
    seed: of the split into train (80 %) and test (20 %).
  """

  source: str
  folder: str = 'data'
  name: str = 'default'
  seed: int = 0


def run(config: Config) -> None:
  """Builds the data set, or finds it built, and prints where it is."""
  if not config.name.replace('_', '').replace('-', '').isalnum():
    raise UserError(f'name may hold letters, digits, - and _: {config.name!r}')
  folder = pathlib.Path(config.folder).expanduser()
  folder.mkdir(parents=True, exist_ok=True)
  from jaxvid.data.videos import lv_bench  # Slow, and not on GPU paths.

  built = lv_bench.build(folder, config.source, config.name, config.seed)
  counts = ', '.join(
    f'{name} {split.num_examples}' for name, split in built.info.splits.items()
  )
  print(f'{built.data_path} ({counts})')
