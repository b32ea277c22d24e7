"""Caches the text encoder's output for every caption of a set."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.errors import UserError
from jaxvid.tasks.progress import progress, say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    weights: the model whose text encoder is used, as `generate.weights`.
    target: folder of the cache; made if missing, continued if not.
    videos: data set of configs/videos/folder.py: the captions of its chunks;
      empty: `prompts`.
    split: of that data set.
    prompts: a file of prompts, or cached latents.
    empty: cache the empty prompt too, which guidance wants.
    shard: texts per shard; a killed job loses at most one shard.
    batch: texts encoded at once.
    dtype: of the computation.
  """

  weights: str
  target: str
  videos: str = ''
  split: str = 'train'
  prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
  empty: bool = True
  shard: int = 256
  batch: int = 8
  dtype: str = 'float32'

  def __post_init__(self):
    if self.shard < 1 or self.batch < 1:
      raise UserError(
        f'shard and batch must be at least 1, not {self.shard} and {self.batch}'
      )
    if not (self.videos or self.prompts.file or self.prompts.latents):
      raise UserError('give videos, prompts.file or prompts.latents')


def run(config: Config) -> None:
  """Encodes the texts that are not cached yet."""
  from jaxvid.data import embeddings, shards
  from jaxvid.tasks import bundle as bundle_lib
  from jaxvid.tasks.latents import fingerprint

  bundle = bundle_lib.open_bundle(config.weights)
  params = bundle.place(bundle.need('text'), config.dtype)
  dim = bundle.configure('text').dim
  folder = pathlib.Path(config.target)
  settings = {'weights': fingerprint(params), 'dtype': config.dtype}
  shards.prepare(folder, settings)
  known = embeddings.known_texts(folder)
  texts = [text for text in read_texts(config) if text not in known]
  if known:
    say(f'{len(known)} texts were encoded before')
  first = len(list(folder.glob(f'{embeddings.EmbeddingShard.name}/shard_*')))
  with progress(len(texts), 'texts') as update:
    for number, start in enumerate(range(0, len(texts), config.shard)):
      part = texts[start : start + config.shard]
      examples = encoded(config, bundle, params, part)
      embeddings.write_shard(folder, first + number, dim, examples)
      update(start + len(part), '')
  print(f'{folder}: {len(known) + len(texts)} texts')


def read_texts(config: Config) -> list[str]:
  """All different texts in the order of their first appearance."""
  from jaxvid.data import prompt_sources

  if config.videos:
    from jaxvid.data.videos import dataset

    source = dataset.open_source(config.videos, config.split)
    found = (t.decode() for e in source for t in e['chunks']['caption'])
  else:
    sources = prompt_sources.open_prompts(config.prompts)
    found = (text for s in sources for i in range(len(s)) for text in s[i])
  return list(dict.fromkeys([*([''] if config.empty else []), *found]))


def encoded(
  config: Config, bundle: Any, params: Any, texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """The examples of one shard."""
  import functools

  import jax

  from jaxvid.models import text as text_lib

  tokens = bundle.tokenizer()
  encode = jax.jit(functools.partial(text_lib.encode, bundle.configure('text')))
  for start in range(0, len(texts), config.batch):
    part = list(texts[start : start + config.batch])
    # The last batch is filled up, so that all have one shape.
    ids, mask = tokens(part + part[-1:] * (config.batch - len(part)))
    rows = np.asarray(encode(params, ids, mask)).astype(np.float16)
    for text, row, valid in zip(part, rows, mask, strict=False):
      yield {'text': text, 'embedding': row[: int(np.sum(valid))]}
