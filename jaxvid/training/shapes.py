"""Sizes of the text-to-video models of the shapes world."""

import pathlib
from typing import Any

from jaxvid.errors import UserError
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig

_WEIGHTS = pathlib.Path(__file__).parent.parent / 'weights'
TOKENIZER = str(_WEIGHTS / 'shapes_tokenizer')
VAE = str(_WEIGHTS / 'shapes_vae')
VOCABULARY = 100
TEXT_LEN = 48


def _sizes(
  dim: int, heads: int, layers: int, text_dim: int, text_layers: int
) -> tuple[DiTConfig, TextConfig]:
  dit = DiTConfig(
    dim=dim,
    ffn_dim=4 * dim,
    num_heads=heads,
    num_layers=layers,
    freq_dim=64,
    text_dim=text_dim,
    text_len=TEXT_LEN,
    # 4 x 4 tokens and some 20 latents: of the frequencies of 10,000 all but
    # the first two would stand still.
    rope_theta=10.0,
  )
  text = TextConfig(
    vocab_size=VOCABULARY,
    dim=text_dim,
    dim_attn=text_dim,
    dim_ffn=2 * text_dim,
    num_heads=4,
    num_layers=text_layers,
  )
  return dit, text


SIZES = {
  # With the text encoder of `small`, whose weights ship.
  'nano': _sizes(96, 3, 4, 64, 2),
  'small': _sizes(128, 4, 6, 64, 2),
  'base': _sizes(384, 12, 12, 128, 3),
}
# One, two and three objects.
CAPTIONS = (
  'a big red circle moves right slowly',
  'a small blue square bounces fast',
  'a green triangle circling slowly and a yellow ring staying still',
  'a white cross pulsing, a red square moving up and a blue ring moving left',
)
# Sizes without a bidirectional teacher: their causal model begins from nothing
# and their students learn, chunk by chunk, from the causal model that ships.
CAUSAL_ONLY = ('nano',)
PIXELS = {'nano': 64, 'small': 64, 'base': 128}


def sizes(name: str) -> tuple[DiTConfig, TextConfig]:
  """Transformer and text encoder of one size.

  Raises:
    UserError: no such size.
  """
  if name not in SIZES:
    raise UserError(f"no size '{name}'; there are {', '.join(SIZES)}")
  return SIZES[name]


def causal_teacher(size: str) -> tuple[str, DiTConfig]:
  """Weights and sizes of the causal model that teaches students of a size.

  As Wan2.1 14B teaches 1.3B, it may be larger than they are.
  """
  if size in CAUSAL_ONLY:
    return exported('shapes', 'small'), sizes('small')[0]
  return f'runs/shapes/{size}/causal_teacher', sizes(size)[0]


def causal(size: str) -> str:
  """Weights of a causal model to go on from; those that ship if small."""
  if size == 'small':
    return exported('shapes', size)
  return f'runs/shapes/{size}/causal_teacher'


def sample_videos(size: str) -> dict[str, Any]:
  """Videos to watch a training of one size by, for its config."""
  side = PIXELS[size] // 8
  return {'vae': VAE, 'captions': CAPTIONS, 'size': (side, side)}


def exported(bundle: str, size: str) -> str:
  """Folder for the weights of a size: shipped if small, else with the runs."""
  if size == 'small':
    return f'jaxvid/weights/{bundle}/model'
  return f'runs/shapes/{size}/{bundle}'


def bundle(name: str, size: str) -> str:
  """Weights of `ship.py`, as tasks take them: a packaged name or a folder."""
  if size == 'small':
    return f'shapes_{name}'
  return f'runs/shapes/{size}/bundles/{name}'
