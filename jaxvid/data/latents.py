"""Cached latents on disk: TFDS shards that can be added one at a time.

A cache is a folder of small TFDS data sets, `latent_shard/shard_00000`, ...
Each appears complete or not at all, so an interrupted job goes on with the
next shard, and training reads the shards that are there.

This module imports tensorflow_datasets; import it only where it is used.
"""

import contextlib
import io
import json
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxvid.errors import UserError

SETTINGS = 'cache.json'
VERSION = '1.0.0'


class LatentShard(tfds.core.GeneratorBasedBuilder):
  """Latents of short videos with captions and what is to be seen."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, shape=(), examples=(), **kwargs):
    self._shape, self._examples = tuple(shape), examples
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {
          'latents': tfds.features.Tensor(
            shape=self._shape, dtype=np.float16, encoding='bytes'
          ),
          'captions': tfds.features.Text(),
          'scene': tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager: Any):
    del dl_manager  # Nothing is downloaded.
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield from enumerate(self._examples)


def shard_path(folder: pathlib.Path, index: int) -> pathlib.Path:
  """Where a finished shard lives."""
  return folder / LatentShard.name / f'shard_{index:05d}' / VERSION


def prepare(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Opens a cache for writing and removes what a killed job left half done.

  Args:
    folder: of the cache.
    settings: what decides its content, JSON; kept in `cache.json`.

  Raises:
    UserError: the folder holds a cache made with other settings.
  """
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / SETTINGS
  # Through JSON, so that tuples and lists compare equal.
  settings = json.loads(json.dumps(dict(settings)))
  if file.exists():
    known = json.loads(file.read_text())
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
    file.write_text(json.dumps(settings, indent=2) + '\n')
  for part in folder.glob('*/shard_*/incomplete*'):
    shutil.rmtree(part, ignore_errors=True)


def write_shard(
  folder: pathlib.Path,
  index: int,
  shape: tuple[int, ...],
  examples: Iterable[Mapping[str, Any]],
) -> bool:
  """Writes one shard unless it is there; says whether it did.

  Args:
    folder: of the cache.
    index: number of the shard.
    shape: of the latents, `[F, H, W, C]`.
    examples: dicts of 'latents' (float16), 'captions' (a list) and 'scene'
      (JSON text); not touched when the shard is there.
  """
  if shard_path(folder, index).exists():
    return False
  with _quiet():
    builder = LatentShard(
      shape=shape,
      examples=(
        {**example, 'captions': '\n'.join(example['captions'])}
        for example in examples
      ),
      data_dir=folder,
      config=tfds.core.BuilderConfig(name=f'shard_{index:05d}'),
      file_format='array_record',
    )
    builder.download_and_prepare()
  shutil.rmtree(folder / 'downloads', ignore_errors=True)
  return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """TFDS tells of downloads; here there are none."""
  tfds.disable_progress_bar()
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)


def open_shards(folder: str | pathlib.Path, count: int | None = None) -> list:
  """Random-access sources of a cache's shards, in order.

  Args:
    folder: of the cache.
    count: the first so many; None = all that are finished.

  Raises:
    UserError: no cache there, or fewer shards than `count`.
  """
  folder = pathlib.Path(folder)
  found = sorted(
    int(match[1])
    for path in folder.glob(f'{LatentShard.name}/shard_*/{VERSION}')
    if (match := re.fullmatch(r'shard_(\d+)', path.parent.name))
  )
  if not found:
    raise UserError(
      f'no cached latents in {folder}; make them first, e.g. with '
      '--config=configs/shapes/latents.py'
    )
  if count is not None and len(found) < count:
    raise UserError(f'{folder} has {len(found)} shards, the run needs {count}')
  builders = [
    tfds.builder_from_directory(shard_path(folder, index))
    for index in found[:count]
  ]
  # TFDS's decorator hides the signature from type checkers.
  return [
    builder.as_data_source('train')  # pyright: ignore[reportCallIssue]
    for builder in builders
  ]


def read_captions(example: Mapping[str, Any]) -> list[str]:
  """The captions of one example as it comes from a source."""
  return example['captions'].decode().split('\n')
