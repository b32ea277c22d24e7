"""A tiny generator with recycled frames, and what its trainings need."""

import dataclasses
import pathlib

import jax
import numpy as np

from jaxvid.convert import specs
from jaxvid.data.curriculum import Source, Stage
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.storage import weights
from jaxvid.training import shapes

PLAIN = DiTConfig(
  dim=24,
  ffn_dim=32,
  num_heads=2,
  num_layers=2,
  freq_dim=16,
  text_dim=8,
  text_len=32,
  in_dim=4,
  out_dim=4,
)
DIT = dataclasses.replace(PLAIN, in_dim=8, rope_grid=(2, 2))
TEXT = TextConfig(
  vocab_size=shapes.VOCABULARY,
  dim=8,
  dim_attn=8,
  dim_ffn=16,
  num_heads=2,
  num_layers=1,
)
# A given frame and 4 that are made; the last two no longer see the second.
FRAMES = 5
BATCH = 2
SINK, WINDOW = 1, 2


def random(kind, config, seed):
  """Small random parameters, unrolled."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: 0.2 * rng.standard_normal(x.shape, np.float32),
    specs.abstract(kind, config),
  )


def write(folder: pathlib.Path) -> dict[str, str]:
  """Weights of a text-to-video model, an adapted model and a generator."""
  text = random('text', TEXT, 7)
  places = {}
  for seed, (name, dit) in enumerate(
    {'plain': PLAIN, 'adapted': DIT, 'generator': DIT}.items()
  ):
    params = {'dit': random('dit', dit, seed), 'text': text}
    heads = {'dit': dataclasses.asdict(dit), 'text': dataclasses.asdict(TEXT)}
    weights.save(folder / name, params, heads, 'float32')
    places[name] = str(folder / name)
  return places


def parts(place: str, chunk: int = 1) -> dict:
  """Settings that every stage has."""
  return {
    'dit': DIT,
    'text': TEXT,
    'tokenizer': shapes.TOKENIZER,
    'weights': place,
    'stages': (Stage((Source('somewhere', (FRAMES,), BATCH),)),),
    'sink': SINK,
    'window': max(WINDOW, chunk),
    'chunk': chunk,
    'scan': True,
  }


def batch(frames: int = FRAMES, seed: int = 0, side: int = 4):
  """What `loaders.latent_batches` gives."""
  rng = np.random.default_rng(seed)
  size = (BATCH, frames, side, side, 4)
  ids = rng.integers(0, shapes.VOCABULARY, (BATCH, PLAIN.text_len))
  return {
    'latents': rng.standard_normal(size).astype(np.float16),
    'ids': ids.astype(np.int32),
    'mask': np.ones((BATCH, PLAIN.text_len), bool),
    'weight': np.ones((BATCH, frames), np.float32),
  }
