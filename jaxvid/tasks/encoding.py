"""Prompts into what the transformer reads."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.models import text as text_lib
from jaxvid.tasks.bundle import Bundle
from jaxvid.tasks.progress import say

Encode = Callable[[Sequence[str]], jax.Array]


def prompt_encoder(
  bundle: Bundle, dtype: str, on_host: bool = False, keep: bool = False
) -> Encode:
  """A function from prompts to `[n, T, D]`.

  Args:
    bundle: the model; words that it does not know are named.
    dtype: compute type.
    on_host: run on the host, whatever the device.
    keep: the encoder stays loaded for other prompts; else it is freed after
      each call.
  """
  tokens = bundle.tokenizer()
  device = jax.devices('cpu')[0] if on_host else None
  held: list[Any] = []

  def encode(prompts: Sequence[str]) -> jax.Array:
    unknown = tokens.unknown_words(prompts[0])
    if unknown:
      say(f'warning: the model does not know {", ".join(map(repr, unknown))}')
    ids, mask = tokens(list(prompts))
    with jax.default_device(device):
      params = held[0] if held else bundle.place('text', dtype)
      if keep and not held:
        held.append(params)
      run = _jitted_encode(bundle.configure('text'), dtype)
      embeds = np.asarray(run(params, ids, mask))
    return jnp.asarray(embeds)

  return encode


@functools.lru_cache(maxsize=4)
def _jitted_encode(config: text_lib.TextConfig, dtype: str):
  return jax.jit(
    functools.partial(text_lib.encode, config, dtype=jnp.dtype(dtype))
  )
