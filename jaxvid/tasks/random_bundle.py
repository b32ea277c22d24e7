"""Models of random weights in any size, to time what nobody trained yet."""

import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np

from jaxvid import config as config_lib
from jaxvid.config import nearest
from jaxvid.convert import specs
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.models import tae, vae
from jaxvid.models.dit import WAN_1_3B, WAN_14B
from jaxvid.models.text import TextConfig
from jaxvid.tasks.bundle import KINDS, PACKAGED, WAN_SIZE, Bundle
from jaxvid.training import shapes
from jaxvid.training.recipes import UMT5_XXL

WAN = {'wan_1_3b': WAN_1_3B, 'wan_14b': WAN_14B}
SIZES = (*shapes.SIZES, *WAN)
_DRAWN = 1 << 20  # random numbers per tensor; larger ones repeat them


def make(size: str) -> Bundle:
  """A model of random weights.

  Args:
    size: one of `SIZES`.

  Raises:
    UserError: no such size.
  """
  if size not in SIZES:
    raise UserError(f'no size {size!r}.{nearest(size, SIZES)}')
  configs, pixels = _configs(size)

  def read(kind: str) -> Any:
    rng = np.random.default_rng(KINDS.index(kind))

    def draw(leaf):
      numbers = rng.standard_normal(min(leaf.size, _DRAWN), np.float32)
      # The scale of a trained matrix, so that nothing overflows.
      scale = (leaf.shape[-2] if leaf.ndim > 1 else 1e4) ** -0.5
      return np.resize(scale * numbers, leaf.shape)

    return jax.tree.map(draw, specs.abstract(kind, configs[kind]))

  return Bundle(
    where=f'random weights of size {size}',
    kinds=frozenset(configs),
    size=pixels,
    configure=configs.__getitem__,
    read=read,
    tokenizer=functools.partial(Tokenizer.load, shapes.TOKENIZER),
  )


def _configs(size: str) -> tuple[dict[str, Any], tuple[int, int]]:
  """Sizes of all parts, and of the videos."""
  if size in WAN:
    configs = {
      'dit': WAN[size],
      'text': TextConfig(**UMT5_XXL),
      'vae': vae.WAN_VAE,
      'tae': tae.TAEW2_1,
    }
    return configs, WAN_SIZE
  dit, text = shapes.sizes(size)
  head = json.loads((PACKAGED / 'shapes_vae' / 'config.json').read_text())
  codec = config_lib.from_dict(vae.VAEConfig, head['config']['vae'])
  small = dataclasses.replace(tae.SHAPES_TAE, z_dim=codec.z_dim)
  side = shapes.PIXELS[size]
  configs = {'dit': dit, 'text': text, 'vae': codec, 'tae': small}
  return configs, (side, side)
