"""Cached text embeddings: the text encoder runs once per caption.

This module imports tensorflow_datasets; import it only where it is used.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvid.data import shards
from jaxvid.errors import UserError


class EmbeddingShard(shards.Shard):
  """Texts and what an encoder makes of them."""


def write_shard(
  folder: pathlib.Path,
  index: int,
  dim: int,
  examples: Iterable[Mapping[str, Any]],
) -> bool:
  """Writes one shard unless it is there; says whether it did.

  Args:
    folder: of the cache, see `shards.prepare`.
    index: number of the shard.
    dim: D.
    examples: dicts of 'text' and 'embedding' float16 `[T, D]`, the rows of
      its tokens without padding.
  """
  rows = tfds.features.Tensor(
    shape=(None, dim), dtype=np.float16, encoding='bytes'
  )
  features = {'text': shards.text(), 'embedding': rows}
  return shards.write_shard(EmbeddingShard, folder, index, features, examples)


def known_texts(folder: pathlib.Path) -> set[str]:
  """The texts that finished shards hold."""
  try:
    return set(Embeddings(folder))
  except UserError:
    return set()


class Embeddings(Mapping[str, np.ndarray]):
  """text -> float16 `[T, D]`, read when asked for."""

  def __init__(self, folder: str | pathlib.Path):
    missing = (
      f'no cached embeddings in {folder}; make them first, e.g. with '
      '--config=configs/videos/embeddings.py'
    )
    sources = shards.open_shards(EmbeddingShard, folder, None, missing)
    self._sources = sources
    self._places = {
      example['text'].decode(): (number, row)
      for number, source in enumerate(sources)
      for row, example in enumerate(source)
    }

  def __getitem__(self, text: str) -> np.ndarray:
    source, row = self._places[text]
    return self._sources[source][row]['embedding']

  def __iter__(self):
    return iter(self._places)

  def __len__(self) -> int:
    return len(self._places)

  def batch(self, texts: Sequence[str], length: int) -> np.ndarray:
    """Embeddings of some texts, zero rows behind: float16 `[B, length, D]`.

    Raises:
      UserError: one of them is not there.
    """
    found = []
    for text in texts:
      if text not in self:
        raise UserError(f'no embedding of {text[:60]!r} is cached')
      rows = self[text][:length]
      found.append(np.pad(rows, ((0, length - len(rows)), (0, 0))))
    return np.stack(found)
