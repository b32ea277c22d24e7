"""A memory budget: what a stream needs, and what to give up to fit it.

Figures are estimates of the device's peak, from the sizes of the models and
of the largest activations; they ask for no compilation and read no weights.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.errors import UserError
from jaxvid.ops.attention import logit_bytes
from jaxvid.stream.stream import Settings

GB = 1e9  # bytes


def size(count: float) -> str:
  """Bytes for people: `3.45 GB`, `12 MB`."""
  return f'{count / GB:.3g} GB' if count >= 1e8 else f'{count / 1e6:.3g} MB'


@dataclasses.dataclass(frozen=True)
class Needs:
  """Bytes that the parts of a stream take on the device.

  Attributes:
    text: the text encoder, needed only until the prompt is encoded.
    dit: the transformer's parameters.
    decoder: the decoder's parameters.
    memory: keys and values of past frames and of the prompt.
    tick: largest activations of a tick.
    decode: largest activations of decoding one latent frame.
    chunk: latent frames decoded at once.
  """

  text: int
  dit: int
  decoder: int
  memory: int
  tick: int
  decode: int
  chunk: int

  def peak(self, latents: int) -> int:
    """Bytes at the worst moment, decoding `latents` frames at once."""
    held = self.dit + self.decoder + self.memory
    return held + max(self.tick, self.decode * latents)

  def __str__(self) -> str:
    rows = {
      'transformer': self.dit,
      'memory of past frames': self.memory,
      'a tick': self.tick,
      'decoder': self.decoder,
      'decoding one latent frame': self.decode,
    }
    return ', '.join(f'{name} {size(value)}' for name, value in rows.items())


@dataclasses.dataclass(frozen=True)
class Measures:
  """What is done to keep a budget.

  Attributes:
    text_on_host: encode the prompt on the CPU.
    decode: latent frames decoded at once.
    notes: what was done, for people.
  """

  text_on_host: bool
  decode: int
  notes: tuple[str, ...] = ()


def param_bytes(tree: Any) -> int:
  """Bytes of a tree of arrays or of their shapes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def stream_bytes(settings: Settings, batch: int = 1) -> tuple[int, int]:
  """Bytes of (memory, the largest activations of a tick) of a stream.

  A bidirectional schedule has no memory; its chunk is the whole clip, given
  by `settings.memory.chunk`.
  """
  config, memory = settings.config, settings.memory
  size = jnp.dtype(settings.dtype).itemsize
  rows = batch * (2 if settings.guided else 1)
  past = 0 if settings.schedule.bidirectional else memory.capacity
  held = past
  if memory.bank is not None:
    # The bank, what a chunk sees of it, and the chunk itself.
    past = memory.chunk * (memory.seen + 1)
    held = past + memory.chunk * memory.bank.capacity
  slots = config.text_len + held * memory.tokens
  kept = 2 * config.num_layers * rows * slots * config.dim * size
  queries = memory.chunk * memory.tokens
  keys = (past or memory.chunk) * memory.tokens
  width = 8 * config.dim + 2 * config.ffn_dim
  # Attention holds logits, as many as it writes out at once, and weights.
  logits = 2 * logit_bytes(rows, config.num_heads, queries, keys)
  return kept, rows * queries * width * size + logits


def decode_bytes(config: Any, height: int, width: int) -> int:
  """Bytes to decode one latent frame to pixels, the widest layers."""
  finest = getattr(config, 'dim', 64)
  size = jnp.dtype(getattr(config, 'dtype', 'float32')).itemsize
  return 6 * config.time_factor * height * width * finest * size


def plan(needs: Needs, memory_gb: float, host: bool) -> Measures:
  """What to do so that a stream fits a budget.

  Args:
    needs: of the stream.
    memory_gb: budget in 10^9 bytes; 0 = no limit.
    host: whether the device is the host itself, which cannot be relieved.

  Raises:
    UserError: nothing helps.
  """
  chunk = needs.chunk
  if not memory_gb:
    return Measures(False, chunk)
  if not 0 < memory_gb < math.inf:
    raise UserError(f'memory_gb must be positive, not {memory_gb:g}')
  budget = memory_gb * GB
  notes = []
  on_host = needs.text > budget and not host
  where = 'runs on the host' if on_host else 'freed after use'
  notes.append(f'text encoder ({size(needs.text)}) {where}')
  pieces = [n for n in range(chunk, 0, -1) if needs.peak(n) <= budget]
  if not pieces or (needs.text > budget and not on_host):
    least = max(needs.peak(1), needs.text if host else 0)
    raise UserError(
      f'memory_gb={memory_gb:g} is too little: about {size(least)} is the '
      f'least ({needs}); a smaller window or size, dtype=bfloat16 or '
      'decoder=tae needs less'
    )
  if pieces[0] < chunk:
    notes.append(f'decoding {pieces[0]} latent frame(s) at a time, not {chunk}')
  notes.append(f'about {size(needs.peak(pieces[0]))} at the peak')
  return Measures(on_host, pieces[0], tuple(notes))
