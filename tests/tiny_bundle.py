"""A complete text-to-video model of random weights, a few kilobytes."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np

from jaxvid.convert import specs
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.models import tae
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.storage import weights
from jaxvid.tasks import bundle

TEXT_LEN = 12
DIT = DiTConfig(
  dim=24,
  ffn_dim=24,
  num_heads=2,
  num_layers=1,
  freq_dim=16,
  text_dim=8,
  text_len=TEXT_LEN,
)
TAE = tae.TAEConfig(decoder_widths=(4, 4, 4, 4), encoder_width=4, blocks=1)


def random(kind: str, config) -> dict:
  """Small random parameters, made without compiling anything."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: 0.2 * rng.standard_normal(x.shape, np.float32),
    specs.abstract(kind, config),
  )


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes the bundle into `folder/tiny` and returns that."""
  tokens = bundle.PACKAGED / 'shapes_tokenizer'
  shutil.copytree(tokens, folder / 'tokenizer')
  text = TextConfig(
    vocab_size=Tokenizer.load(tokens).vocab_size,
    dim=8,
    dim_attn=8,
    dim_ffn=8,
    num_heads=2,
    num_layers=1,
  )
  parts = {'model': {'dit': DIT, 'text': text}, 'tae': {'tae': TAE}}
  for name, configs in parts.items():
    params = {kind: random(kind, config) for kind, config in configs.items()}
    heads = {kind: dataclasses.asdict(c) for kind, c in configs.items()}
    if len(params) == 1:
      (params,) = params.values()
    weights.save(folder / name, params, heads)
  places = {'dit': 'model', 'text': 'model', 'tae': 'tae'}
  places = {kind: f'../{name}' for kind, name in places.items()}
  places['tokenizer'] = '../tokenizer'
  bundle.save_bundle(folder / 'tiny', places, (16, 32))
  return folder / 'tiny'
