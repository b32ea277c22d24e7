"""Which tokens of a chunk are worth remembering.

Probe queries, the chunk's last tokens and some drawn at random, say how much
each key is attended; kept is the smallest set of keys that covers a share tau
of that. Plain functions with static shapes: a set is a list of fixed length
and a count. Sources: BlockVid, equations 4 and 5 and algorithm 2; ZipVL.
"""

import jax
import jax.numpy as jnp


def probe_index(
  key: jax.Array, tokens: int, recent: int, random: int
) -> jax.Array:
  """Indices `[P]` of the probe queries among a chunk's `tokens`.

  The last `recent` tokens, then `random` different ones of those before
  them; fewer where a chunk is too short.
  """
  recent = min(recent, tokens)
  before = tokens - recent
  drawn = jax.random.permutation(key, before)[:random]
  last = before + jnp.arange(recent)
  return jnp.concatenate([last, drawn]).astype(jnp.int32)


def importance(
  q: jax.Array, k: jax.Array, index: jax.Array, causal: bool
) -> jax.Array:
  """How much the probes attend each key, summed over heads and probes.

  Args:
    q: rotated queries of the chunk `[B, T, N, D]`.
    k: rotated keys of the chunk `[B, T, N, D]`.
    index: `[P]`, which queries are probes.
    causal: a probe sees no later token (algorithm 2); else all tokens of its
      chunk (the chunk-level mask of equation 4).

  Returns:
    float32 `[B, T]`.
  """
  logits = jnp.einsum(
    'bpnd,bsnd->bnps', q[:, index], k, preferred_element_type=jnp.float32
  )
  logits = logits * (q.shape[-1] ** -0.5)
  if causal:
    seen = jnp.arange(k.shape[1]) <= index[:, None]
    logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
  return jnp.sum(jax.nn.softmax(logits, axis=-1), axis=(1, 2))


def cumulative_mean(x: jax.Array) -> jax.Array:
  """Mean of all entries up to each one, along the last axis."""
  return jnp.cumsum(x, -1) / (1 + jnp.arange(x.shape[-1]))


def cover_count(x: jax.Array, tau: float) -> jax.Array:
  """Size of the smallest set of entries that covers `tau` of their sum.

  Args:
    x: not negative, `[..., T]`.
    tau: share in (0, 1]; from 1 on, all entries are needed.

  Returns:
    int32 `[...]`, 1 to T.
  """
  size = x.shape[-1]
  if tau >= 1:
    return jnp.full(x.shape[:-1], size, jnp.int32)
  falling = -jnp.sort(-x, axis=-1)
  short = jnp.cumsum(falling, -1) < tau * jnp.sum(x, -1, keepdims=True)
  return jnp.minimum(1 + jnp.sum(short, -1), size).astype(jnp.int32)


def select(
  scores: jax.Array, tau: float, room: int
) -> tuple[jax.Array, jax.Array]:
  """The tokens to keep, most important first.

  Args:
    scores: not negative, `[B, T]`.
    tau: share of their sum to cover.
    room: at most so many are kept.

  Returns:
    Indices int32 `[B, room]` and how many of them count, int32 `[B]`; with
    `room` > T the rest is 0.
  """
  tokens = scores.shape[-1]
  order = jnp.argsort(-scores, axis=-1)[:, :room].astype(jnp.int32)
  order = jnp.pad(order, ((0, 0), (0, max(0, room - tokens))))
  return order, jnp.minimum(cover_count(scores, tau), room)


def compact(keep: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Moves what is kept to the front.

  Args:
    keep: bool `[B, S]`.
    size: length of the result; at least as many as can be kept.

  Returns:
    Indices int32 `[B, size]` of the kept entries in order, then zeros, and
    their number int32 `[B]`.
  """
  batch, count = keep.shape
  place = jnp.where(keep, jnp.cumsum(keep, -1) - 1, size)
  rows = jnp.arange(batch)[:, None]
  values = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), keep.shape)
  index = jnp.zeros((batch, size), jnp.int32)
  index = index.at[rows, place].set(values, mode='drop')
  return index, jnp.sum(keep, -1, dtype=jnp.int32)
