"""Sizes and random draws of a stream's chunks."""

import jax

from jaxvid.diffusion import chunk_noise
from jaxvid.stream.state import Settings, State


def latent_shape(settings: Settings, state: State) -> tuple[int, ...]:
  """`[B, F, H, W, C]` of one chunk."""
  memory = settings.memory
  batch = state.text.k[0].shape[-4] // (2 if settings.guided else 1)
  _, rows, columns = settings.config.patch_size
  size = (rows * memory.height, columns * memory.width)
  return (batch, memory.chunk, *size, settings.config.out_dim)


def chunk_keys(state: State) -> jax.Array:
  """Keys of the next chunk: of its first noise, and of its ticks' noise."""
  return jax.random.split(jax.random.fold_in(state.key, state.chunk))


def start_noise(
  settings: Settings, state: State, shape: tuple[int, ...]
) -> jax.Array:
  """What the next chunk begins from, `shape` = `[B, F, H, W, C]`."""
  keys = chunk_keys(state)
  return chunk_noise.start_noise(
    settings.noise, state.key, state.chunk, (keys[0], keys[1]), shape
  )


def tick_noise(key: jax.Array, i, shape: tuple[int, ...]) -> jax.Array:
  """Fresh noise after tick i; the same however many ticks there are."""
  return jax.random.normal(jax.random.fold_in(key, i), shape)
