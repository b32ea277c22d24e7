"""Cached latents on disk, with captions and what is to be seen.

This module imports tensorflow_datasets; import it only where it is used.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvid.data import shards


class LatentShard(shards.Shard):
  """Latents of short videos with captions and what is to be seen."""


def write_shard(
  folder: pathlib.Path,
  index: int,
  shape: tuple[int, ...],
  examples: Iterable[Mapping[str, Any]],
) -> bool:
  """Writes one shard unless it is there; says whether it did.

  Args:
    folder: of the cache, see `shards.prepare`.
    index: number of the shard.
    shape: of the latents, `[F, H, W, C]`.
    examples: dicts of 'latents' (float16), 'captions' (a list) and 'scene'
      (JSON text); not touched when the shard is there.
  """
  features = {
    'latents': shards.array(tuple(shape)),
    'captions': shards.text(),
    'scene': shards.text(),
  }
  joined = (
    {**example, 'captions': '\n'.join(example['captions'])}
    for example in examples
  )
  return shards.write_shard(LatentShard, folder, index, features, joined)


def open_shards(folder: str | pathlib.Path, count: int | None = None) -> list:
  """Random-access sources of the shards, see `shards.open_shards`."""
  missing = (
    f'no cached latents in {folder}; make them first, e.g. with '
    '--config=configs/shapes/latents.py'
  )
  return shards.open_shards(LatentShard, folder, count, missing)


def read_captions(example: Mapping[str, Any]) -> list[str]:
  """The captions of one example as it comes from a source."""
  return example['captions'].decode().split('\n')


def is_script(example: Mapping[str, Any]) -> bool:
  """Whether a clip has several shots, and one caption per chunk."""
  return 'shots' in json.loads(example['scene'])
