"""The tiny Wan2.1 transformer of the reference data, ready to run."""

import functools
import json

import jax.numpy as jnp
import numpy as np
from golden import path
from safetensors.numpy import load_file

from jaxvid.convert import rules
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.models.layers import stack_layers

LATENT = (2, 3)  # token rows and columns of 4 x 6 latents


@functools.cache
def config() -> DiTConfig:
  sizes = json.loads(path('dit/config.json').read_text())['model']
  names = ('dim', 'ffn_dim', 'num_heads', 'num_layers', 'freq_dim')
  names += ('text_dim', 'text_len', 'in_dim', 'out_dim', 'eps')
  return DiTConfig(**{name: sizes[name] for name in names})


@functools.cache
def unrolled_params():
  return rules.convert(
    load_file(path('dit/diffusion_pytorch_model.safetensors'))
  )


@functools.cache
def stacked_params():
  return stack_layers(unrolled_params())


def network(scan: bool):
  """(module, params) in the training or in the streaming layout."""
  params = stacked_params() if scan else unrolled_params()
  return DiT(config(), scan=scan), {'params': params}


def last(x: np.ndarray) -> jnp.ndarray:
  """[..., C, F, H, W] -> [..., F, H, W, C]."""
  return jnp.moveaxis(jnp.asarray(x), -4, -1)


def first(x) -> np.ndarray:
  """[..., F, H, W, C] -> [..., C, F, H, W]."""
  return np.moveaxis(np.asarray(x), -1, -4)
