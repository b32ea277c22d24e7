"""All chunks of a clip in one pass, each beside what a bank would show it.

Training sees what a stream will see: the recent chunks, and those that the
prompts of the clip retrieve, at the positions at which `BankMemory` puts them
into a context. As with `tau=1` and `drop=0`, before anything is evicted: all
tokens of a chosen chunk are seen.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.memory.bank_rules import choose
from jaxvid.memory.memory import MemoryConfig
from jaxvid.memory.plan import LayerCache
from jaxvid.ops.attention import attention
from jaxvid.ops.rope import rotate, rotation


@struct.dataclass
class BankPassPlan:
  """A `Plan` over n chunks of T tokens, or over a clean and a noisy clip.

  Attributes:
    chosen: int32 `[B, n, R]`, chunks that each chunk sees, in order of time,
      those that count first.
    length: int32 `[B, n]`, tokens of them that count.
    rotation: `[2, n T, D / 2]` of the chunks' own tokens.
    past_rotation: `[2, R T, D / 2]` of the chosen ones (relative positions);
      None: they are rotated as they were made.
    clips: 2 with teacher forcing, `[clean | noisy]`: both see clean chunks;
      1: chunks see each other.
    backend: of attention.
  """

  chosen: jax.Array
  length: jax.Array
  rotation: jax.Array
  past_rotation: jax.Array | None
  clips: int = struct.field(pytree_node=False)
  backend: str = struct.field(pytree_node=False, default='xla')

  def attend(self, q, k, v, cache: LayerCache):
    """Attention `[B, clips n T, N, D]` and the (absent) cache."""
    batch, chunks, _ = self.chosen.shape
    heads = q.shape[2:]

    def cut(x):
      return x.reshape(batch, self.clips, chunks, -1, *heads)

    table = jnp.tile(self.rotation, (1, self.clips, 1))
    q, own, plain = cut(rotate(q, table)), cut(rotate(k, table)), cut(k)
    if self.past_rotation is None:
      past_k = self._past(own)
    else:
      past_k = self._past(plain)
      flat = past_k.reshape(batch * chunks, *past_k.shape[2:])
      past_k = rotate(flat, self.past_rotation).reshape(past_k.shape)
    past_v = self._past(cut(v))

    def beside(mine, past):
      # A chunk's own tokens first: what counts is one prefix.
      both = jnp.broadcast_to(
        past[:, None], (batch, self.clips, *past.shape[1:])
      )
      return jnp.concatenate([mine, both], 3)

    keys, values = beside(own, past_k), beside(cut(v), past_v)
    length = q.shape[3] + self.length[:, None]
    length = jnp.broadcast_to(length, q.shape[:3])
    out = attention(
      q.reshape(-1, *q.shape[3:]),
      keys.reshape(-1, *keys.shape[3:]),
      values.reshape(-1, *values.shape[3:]),
      length=length.reshape(-1),
      backend=self.backend,
    )
    return out.reshape(batch, -1, *heads), cache

  def _past(self, parts):
    """What every chunk sees of the first clip `[B, n, R T, N, D]`."""
    batch, chunks, seen = self.chosen.shape
    index = self.chosen.reshape(batch, chunks * seen, 1, 1, 1)
    taken = jnp.take_along_axis(parts[:, 0], index, 1)
    tokens, *rest = parts.shape[3:]
    return taken.reshape(batch, chunks, seen * tokens, *rest)


def bank_pass(
  config: MemoryConfig,
  prompts: jax.Array,
  forcing: str,
  head_dim: int,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
) -> BankPassPlan:
  """Plan of a clip of n whole chunks.

  Args:
    config: of the memory, with a bank.
    prompts: mean embeddings of the chunks' prompts `[B, n, P]`.
    forcing: 'teacher' (a clean clip runs before it) or 'diffusion'.
    head_dim: D.
    backend: of attention.
    theta: `DiTConfig.rope_theta`.
    grid: `DiTConfig.rope_grid`.
  """
  batch, chunks, _ = prompts.shape
  # Nothing is evicted from a bank that holds the whole clip.
  entries = max(chunks, config.bank.capacity)
  bank = dataclasses.replace(config.bank, capacity=entries)
  config = dataclasses.replace(config, bank=bank)
  missing = entries - chunks
  number = jnp.pad(1 + jnp.arange(chunks), (0, missing))
  number = jnp.broadcast_to(number, (batch, entries))
  held = jnp.pad(prompts, ((0, 0), (0, missing), (0, 0)))

  def seen(c):
    return choose(number, held, prompts[:, c], c, config)

  chosen, valid = jax.vmap(seen, out_axes=1)(jnp.arange(chunks))
  count = jnp.sum(valid, -1, dtype=jnp.int32)
  tokens, frames = config.chunk * config.tokens, jnp.arange(config.chunk)
  starts = jnp.arange(chunks)
  past = None
  size = config.height, config.width, head_dim, theta, grid
  if config.positions == 'relative':
    starts = count[0]  # How many there are depends on the place alone.
  if config.positions == 'relative' and config.seen:
    past = rotation(jnp.arange(config.seen * config.chunk), *size)
  index = (config.chunk * starts[:, None] + frames).reshape(-1)
  return BankPassPlan(
    jnp.where(valid, chosen, 0),
    tokens * count,
    rotation(index, *size),
    past,
    2 if forcing == 'teacher' else 1,
    backend,
  )
