"""Which past chunks are seen, and which one makes room for a new one.

Every sample of a batch has its own prompts, so all choices are per sample.
Chunks are numbered from 1; 0 marks an empty entry.
"""

import jax
import jax.numpy as jnp

from jaxvid.memory.memory import MemoryConfig

# Cosines that agree to so many decimals are equal: `BankConfig.alike` decides.
DECIMALS = 4


def unit(x: jax.Array) -> jax.Array:
  """Vectors `[..., P]` of length 1; zeros stay zeros."""
  norm = jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True)
  return x / jnp.maximum(norm, 1e-12)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosines of vectors `[..., P]`, rounded; rows of `a` against `b`."""
  product = jnp.sum(unit(a) * unit(b), axis=-1)
  return jnp.round(product, DECIMALS)


def choose(
  number: jax.Array,
  prompts: jax.Array,
  prompt: jax.Array,
  count: jax.Array,
  config: MemoryConfig,
) -> tuple[jax.Array, jax.Array]:
  """Entries that the next chunk sees (algorithm 1, stages B and C).

  Args:
    number: of the chunk in each entry, int32 `[B, E]`.
    prompts: mean embeddings of their prompts `[B, E, P]`.
    prompt: that of the next chunk `[B, P]`.
    count: chunks so far, int32.
    config: of the memory.

  Returns:
    Entries int32 `[B, R]` in order of time, and which of them count, bool
    `[B, R]`; those come first.
  """
  bank = config.bank
  held = (number > 0) & (number <= count)
  sink, recent = _fixed(number, count, config)
  fixed = held & (sink | recent)
  # 2 = always seen, 1 = may be retrieved, 0 = not there.
  rank = held + fixed.astype(jnp.int32)
  score = cosine(prompts, prompt[:, None])
  tie = number
  if bank.retrieval == 'recent':
    score = jnp.zeros_like(score)
  elif bank.alike == 'earlier':
    tie = -number
  order = jnp.flip(jnp.lexsort((tie, score, rank), axis=-1), -1)
  slots = order[:, : config.seen]
  chosen = jnp.take_along_axis(rank, slots, 1)
  most = jnp.sum(fixed, -1, keepdims=True) + bank.retrieved
  valid = (chosen == 2) | ((chosen == 1) & (jnp.arange(config.seen) < most))
  when = jnp.take_along_axis(number, slots, 1)
  in_time = jnp.argsort(jnp.where(valid, when, jnp.iinfo(jnp.int32).max), -1)
  slots, valid = (jnp.take_along_axis(x, in_time, 1) for x in (slots, valid))
  return slots.astype(jnp.int32), valid


def slot_to_write(
  number: jax.Array,
  prompts: jax.Array,
  prompt: jax.Array,
  count: jax.Array,
  config: MemoryConfig,
) -> jax.Array:
  """Entry that takes the current chunk, int32 `[B]`.

  The one that holds it already (a chunk made again), else an empty one, else
  the one that `BankConfig.evict` names among those that the next chunk does
  not need; of two alike the one that `BankConfig.alike` does not favour. With
  `retrieval='recent'` it is the oldest, whatever they say.

  Args:
    number, prompts: see `choose`.
    prompt: mean embedding of the current chunk's prompt `[B, P]`.
    count: chunks before the current one, int32.
    config: of the memory.
  """
  sink, recent = _fixed(number, count + 1, config)
  newest = number > count + 1 - config.bank.lag
  tie = -number if config.bank.alike == 'earlier' else number
  if config.bank.retrieval == 'recent':
    score, tie = jnp.zeros(number.shape), number
  elif config.bank.evict == 'dissimilar':
    units = unit(prompts)
    near = jnp.where(recent[..., None], units, 0)
    score = cosine(units, (jnp.sum(near, 1) + unit(prompt))[:, None])
  else:
    score = -_closest(number, prompts, prompt)
  score = jnp.where(sink | recent | newest, 2.0, score)
  score = jnp.where(number == 0, -2.0, score)
  score = jnp.where(number == count + 1, -3.0, score)
  return jnp.lexsort((tie, score), axis=-1)[:, 0].astype(jnp.int32)


def _fixed(number, count, config: MemoryConfig):
  """Entries of the sink, and of the recent chunks before chunk `count`."""
  chunk, lag = config.chunk, config.bank.lag
  sink = (number > 0) & (number <= config.sink // chunk)
  newest = count + 1 - lag
  recent = (number <= newest) & (number > newest - config.window // chunk + 1)
  return sink, recent & (number > 0)


def _closest(number, prompts, prompt):
  """Largest cosine of each entry to another one or to the new prompt."""
  known = jnp.concatenate([prompts, prompt[:, None]], 1)
  pairs = jnp.einsum('bep,bfp->bef', unit(prompts), unit(known))
  pairs = jnp.round(pairs, DECIMALS)
  entries = number.shape[-1]
  there = jnp.pad(number > 0, ((0, 0), (0, 1)), constant_values=True)
  other = ~jnp.eye(entries, entries + 1, dtype=bool) & there[:, None]
  return jnp.max(jnp.where(other, pairs, -1.0), -1)
