"""Caches on disk: TFDS shards that can be added one at a time.

A cache is a folder of small TFDS data sets, `<kind>/shard_00000`, ..., and
`cache.json`, the settings that made them. Each shard appears complete or not
at all, so an interrupted job goes on with the next one, and training reads
those that are there.

This module imports tensorflow_datasets; import it only where it is used.
"""

import contextlib
import io
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxvid.data import files
from jaxvid.errors import UserError

SETTINGS = 'cache.json'
VERSION = '1.0.0'
Example = Mapping[str, Any]


class Shard(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Examples handed over by the caller; each kind of cache has a subclass."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, features=(), examples=(), **kwargs):
    self._features, self._examples = dict(features), examples
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(self._features),
    )

  def _split_generators(self, dl_manager: Any):
    del dl_manager  # Nothing is downloaded.
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield from enumerate(self._examples)


def array(shape: tuple[int, ...]) -> Any:
  """A float16 array of this shape, as a feature."""
  return tfds.features.Tensor(shape=shape, dtype=np.float16, encoding='bytes')


def text() -> Any:
  """A text, as a feature."""
  return tfds.features.Text()


def shard_path(
  kind: type[Shard], folder: pathlib.Path, index: int
) -> pathlib.Path:
  """Where a finished shard lives."""
  return folder / kind.name / f'shard_{index:05d}' / VERSION


def prepare(
  folder: pathlib.Path,
  settings: Mapping[str, Any],
  mine: Callable[[int], bool] = lambda index: True,
) -> None:
  """Opens a cache for writing and removes what a killed job left half done.

  Args:
    folder: of the cache.
    settings: what decides its content, JSON; kept in `cache.json`.
    mine: which shards this process writes; others may be under way.

  Raises:
    UserError: the folder holds a cache made with other settings.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # Through JSON, so that tuples and lists compare equal.
  settings = json.loads(json.dumps(dict(settings)))
  if (folder / SETTINGS).exists():
    known = read_settings(folder)
    changed = sorted(
      key
      for key in known.keys() | settings.keys()
      if known.get(key) != settings.get(key)
    )
    if changed:
      raise UserError(
        f'{folder} was made with another {", ".join(changed)}; give another '
        'target or remove it'
      )
  else:
    with files.replacing(folder / SETTINGS) as file:
      file.write((json.dumps(settings, indent=2) + '\n').encode())
  for part in folder.glob('*/shard_*/incomplete*'):
    if mine(int(part.parent.name.removeprefix('shard_'))):
      shutil.rmtree(part, ignore_errors=True)


def read_settings(folder: str | pathlib.Path) -> dict[str, Any]:
  """The settings that a cache was made with; UserError if it has none."""
  file = pathlib.Path(folder) / SETTINGS
  try:
    value = json.loads(file.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'cannot read {file}: {error}') from error
  return value


def write_shard(
  kind: type[Shard],
  folder: pathlib.Path,
  index: int,
  features: Mapping[str, Any],
  examples: Iterable[Example],
) -> bool:
  """Writes one shard unless it is there; says whether it did.

  Args:
    kind: of the cache.
    folder: of the cache.
    index: number of the shard.
    features: name -> `array` or `text`.
    examples: dicts of these; not touched when the shard is there.
  """
  if shard_path(kind, folder, index).exists():
    return False
  # Nothing is downloaded, but TFDS makes a folder for it.
  with quiet(), tempfile.TemporaryDirectory() as unused:
    builder = kind(
      features=features,
      examples=examples,
      data_dir=folder,
      config=tfds.core.BuilderConfig(name=f'shard_{index:05d}'),
      file_format='array_record',
    )
    builder.download_and_prepare(download_dir=unused)
  return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """TFDS tells of downloads; here there are none."""
  tfds.disable_progress_bar()
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)


def open_shards(
  kind: type[Shard],
  folder: str | pathlib.Path,
  count: int | None,
  missing: str,
) -> list:
  """Random-access sources of a cache's shards, in order.

  Several processes may fill a cache; a shard behind an unfinished one waits,
  so that the first n shards are always the same ones.

  Args:
    kind: of the cache.
    folder: of the cache.
    count: the first so many; None = all that are finished.
    missing: message if there are none.

  Raises:
    UserError: no cache there, or fewer shards than `count`.
  """
  folder = pathlib.Path(folder)
  found = sorted(
    int(match[1])
    for path in folder.glob(f'{kind.name}/shard_*/{VERSION}')
    if (match := re.fullmatch(r'shard_(\d+)', path.parent.name))
  )
  found = [index for place, index in enumerate(found) if place == index]
  if not found:
    raise UserError(missing)
  if count is not None and len(found) < count:
    raise UserError(f'{folder} has {len(found)} shards, the run needs {count}')
  builders = [
    tfds.builder_from_directory(shard_path(kind, folder, index))
    for index in found[:count]
  ]
  # TFDS's decorator hides the signature from type checkers.
  return [
    builder.as_data_source('train')  # pyright: ignore[reportCallIssue]
    for builder in builders
  ]


def open_split(folder: str | pathlib.Path, part: str) -> Any:
  """Random access to one split of a TFDS data set.

  Args:
    folder: that holds `dataset_info.json`.
    part: name of the split.

  Raises:
    UserError: no such data set or split.
  """
  try:
    builder = tfds.builder_from_directory(folder)
  except (OSError, ValueError) as error:
    raise UserError(f'{folder} is no data set') from error
  if part not in builder.info.splits:
    names = ', '.join(builder.info.splits)
    raise UserError(f'{folder} has no split {part!r}; there are {names}')
  return builder.as_data_source(part)  # pyright: ignore[reportCallIssue]
