"""LV-Bench's annotations as a TFDS data set, split 8:2 by a seed.

The videos themselves stay where they are: an example names its video and
holds its captions with their spans. The paper says that 1,000 videos were
split 8:2 at random, not how; here a seed decides, whatever the order.

This module imports tensorflow_datasets; import it only where it is used.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvid.data import shards
from jaxvid.data.videos import captions as captions_lib
from jaxvid.data.videos.captions import Caption, Script

SPLITS = ('train', 'test')
_SHARE = 0.8


def split(scripts: Sequence[Script], seed: int) -> dict[str, list[Script]]:
  """The scripts of each split, exactly 8:2 (rounded), in their order.

  Those whose digest is highest are for testing.
  """
  ranked = sorted(
    scripts,
    key=lambda s: hashlib.sha256(f'{seed}:{s.name}'.encode()).digest(),
  )
  first = round(_SHARE * len(scripts))
  train = {script.name for script in ranked[:first]}
  return {
    'train': [script for script in scripts if script.name in train],
    'test': [script for script in scripts if script.name not in train],
  }


@dataclasses.dataclass(eq=False)
class LvBenchConfig(tfds.core.BuilderConfig):
  """A name for annotations.

  Attributes:
    source: the file, see `captions.read_scripts`.
    seed: of the split.
  """

  source: str = ''
  seed: int = 0


class LvBench(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Captions of minute-long videos, one per 2 to 5 seconds."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    spans = {'start': np.float64, 'end': np.float64, 'text': text()}
    features = {'name': text(), 'captions': tfds.features.Sequence(spans)}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), description=self.__doc__
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    parts = split(captions_lib.read_scripts(config.source), config.seed)
    return {
      name: self._generate_examples(scripts)
      for name, scripts in parts.items()
      if scripts
    }

  def _generate_examples(
    self, scripts: Sequence[Script]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    for script in scripts:
      spans = [caption._asdict() for caption in script.captions]
      yield script.name, {'name': script.name, 'captions': spans}


def build(
  folder: str | pathlib.Path, source: str, name: str = 'default', seed: int = 0
) -> Any:
  """Builds the data set under `folder` unless it is there already.

  Its name ends with a digest of the annotations and the seed, so others never
  pass for these.

  Returns:
    The TFDS builder, ready for `as_data_source('test')`.

  Raises:
    UserError: no such file, or no captions in it.
  """
  path = pathlib.Path(source).expanduser()
  captions_lib.read_scripts(path)  # Says what is wrong before TFDS starts.
  digest = hashlib.sha256(path.read_bytes() + str(seed).encode()).hexdigest()
  config = LvBenchConfig(
    name=f'{name}_{digest[:8]}', source=str(path), seed=seed
  )
  with shards.quiet():
    builder = LvBench(data_dir=folder, config=config)
    builder.download_and_prepare(file_format='array_record')
  return builder


def read(folder: str | pathlib.Path, part: str) -> list[Script]:
  """The scripts of one split of a data set that was built.

  Args:
    folder: that holds `dataset_info.json`.
    part: 'train' or 'test'.

  Raises:
    UserError: no such data set or split.
  """
  return [_script(example) for example in shards.open_split(folder, part)]


def _script(example: dict[str, Any]) -> Script:
  spans = example['captions']
  rows = zip(spans['start'], spans['end'], spans['text'], strict=True)
  found = [Caption(float(a), float(b), text.decode()) for a, b, text in rows]
  return Script(example['name'].decode(), tuple(found))
