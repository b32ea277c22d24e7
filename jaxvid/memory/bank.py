"""A memory that finds past chunks again by what was said of them.

Every finished chunk leaves its most important keys and values in a bank, per
layer. Before a chunk begins, `begin` copies what it will see (recent chunks,
and those whose prompts are most like its own) into a context of fixed size;
its ticks attend context and chunk and write nothing else. All shapes are
static: what does not count is masked by a length per layer and sample, so
that neither memory nor time grow with the video.

Source: BlockVid, section 3.3 and algorithms 1 and 2.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.memory import sparse
from jaxvid.memory.bank_plan import BankPlan
from jaxvid.memory.bank_rules import choose, slot_to_write
from jaxvid.memory.memory import Memory, MemoryConfig
from jaxvid.ops.rope import rotate, rotation


@struct.dataclass
class LayerBank:
  """What one layer holds; E entries of M tokens, C of context, T of a chunk.

  Attributes:
    k: keys of past chunks `[B, E, M, N, D]`.
    v: values, like `k`.
    place: int32 `[B, E, M]`, place of each token in its chunk.
    kept: int32 `[B, E]`, tokens of each entry that count.
    context_k: keys that the current chunk sees `[B, C, N, D]`, rotated.
    context_v: their values.
    length: int32 `[B]`, how many of them count.
    own_k: keys of the current chunk `[B, T, N, D]`.
    own_v: its values.
    scores: importance of its tokens, float32 `[B, T]`.
  """

  k: jax.Array
  v: jax.Array
  place: jax.Array
  kept: jax.Array
  context_k: jax.Array
  context_v: jax.Array
  length: jax.Array
  own_k: jax.Array
  own_v: jax.Array
  scores: jax.Array


# A tuple of L `LayerBank`, or one with a leading axis L.
Layers = Any


@struct.dataclass
class BankMemory:
  """Past chunks, what the current one sees, and what it is about.

  Stands wherever a `Memory` does; `begin` must come before a chunk's ticks.

  Attributes:
    layers: a tuple of L, or one with a leading axis L (training).
    number: int32 `[B, E]`, number of the chunk in each entry, from 1; 0 =
      empty.
    prompt: mean prompt embedding of each entry, float32 `[B, E, P]`.
    now: that of the current chunk `[B, P]`.
    rank: int32, chunks in the context.
    frame: int32, first latent frame of the current chunk.
    count: int32, chunks so far.
    config: static shape of the memory.
  """

  layers: Layers
  number: jax.Array
  prompt: jax.Array
  now: jax.Array
  rank: jax.Array
  frame: jax.Array
  count: jax.Array
  config: MemoryConfig = struct.field(pytree_node=False)

  @classmethod
  def create(
    cls,
    config: MemoryConfig,
    *,
    batch: int,
    layers: int,
    heads: int,
    head_dim: int,
    text_dim: int,
    dtype: jnp.dtype = jnp.float32,
    stacked: bool = False,
  ) -> 'BankMemory':
    """An empty memory at frame 0; prompts have `text_dim` numbers."""
    bank = config.bank
    tokens, seen = config.chunk * config.tokens, config.seen
    room = max(1, math.ceil(bank.room * tokens - 1e-9))
    entries = bank.capacity

    def one() -> LayerBank:
      def kv(*shape):
        return jnp.zeros((batch, *shape, heads, head_dim), dtype)

      return LayerBank(
        k=kv(entries, room),
        v=kv(entries, room),
        place=jnp.zeros((batch, entries, room), jnp.int32),
        kept=jnp.zeros((batch, entries), jnp.int32),
        context_k=kv(seen * room),
        context_v=kv(seen * room),
        length=jnp.zeros(batch, jnp.int32),
        own_k=kv(tokens),
        own_v=kv(tokens),
        scores=jnp.zeros((batch, tokens)),
      )

    if stacked:
      held = jax.tree.map(
        lambda x: jnp.tile(x, (layers,) + (1,) * x.ndim), one()
      )
    else:
      held = tuple(one() for _ in range(layers))
    return cls(
      layers=held,
      number=jnp.zeros((batch, entries), jnp.int32),
      prompt=jnp.zeros((batch, entries, text_dim)),
      now=jnp.zeros((batch, text_dim)),
      rank=jnp.zeros((), jnp.int32),
      frame=jnp.zeros((), jnp.int32),
      count=jnp.zeros((), jnp.int32),
      config=config,
    )

  @property
  def stacked(self) -> bool:
    """Whether layers share one array (the training layout)."""
    return isinstance(self.layers, LayerBank)

  @property
  def head_dim(self) -> int:
    """Numbers D per head."""
    return self._first().own_k.shape[-1]

  @property
  def context(self) -> int:
    """Tokens C of the past that a chunk sees at most."""
    return self._first().context_k.shape[-3]

  @property
  def k(self):
    """What a scan over layers reads: keys and how many count."""
    return self.layers.context_k, self.layers.length

  @property
  def v(self):
    """What a scan over layers reads: values."""
    return self.layers.context_v

  def layer(self, i: int):
    """What layer i reads: (keys, how many count), values."""
    layer = self.layers[i]
    return (layer.context_k, layer.length), layer.context_v

  def begin(
    self,
    prompt: jax.Array,
    theta: float = 10_000.0,
    grid: tuple[int, int] | None = None,
  ) -> 'BankMemory':
    """Finds what the next chunk sees.

    Args:
      prompt: mean embedding of its prompt `[B, P]`.
      theta: of the rotary frequencies.
      grid: see `ops.rope.rotation`.
    """
    config = self.config
    slots, valid = choose(self.number, self.prompt, prompt, self.count, config)
    tokens = config.chunk * config.tokens
    table = None
    if config.positions == 'relative' and config.seen:
      frames = jnp.arange(config.seen * config.chunk)
      size = config.height, config.width, self.head_dim
      table = rotation(frames, *size, theta, grid)
    key = jax.random.fold_in(jax.random.key(config.bank.seed), 2 * self.count)

    def fill(layer: LayerBank) -> LayerBank:
      room = layer.place.shape[-1]
      kept = jnp.take_along_axis(layer.kept, slots, 1)
      keep = (jnp.arange(room) < kept[..., None]) & valid[..., None]
      if config.bank.drop:
        keep &= jax.random.bernoulli(key, 1 - config.bank.drop, keep.shape)
      index, length = sparse.compact(
        keep.reshape(len(keep), -1), layer.context_k.shape[1]
      )
      entry = jnp.take_along_axis(slots, index // room, 1)
      source = entry * room + index % room
      k = _take(_flat(layer.k), source)
      if table is not None:
        place = jnp.take_along_axis(_flat(layer.place), source, 1)
        # Chosen chunks come in order of time, those that count first.
        where = index // room * tokens + place
        turn = functools.partial(rotate, split=config.split)
        k = jax.vmap(turn, (0, 1))(k, table[:, where])
      return layer.replace(
        context_k=k, context_v=_take(_flat(layer.v), source), length=length
      )

    return self.replace(
      layers=self._each(fill),
      now=jnp.asarray(prompt, jnp.float32),
      rank=jnp.sum(valid[0], dtype=jnp.int32),
    )

  def described(self) -> 'BankMemory':
    """The chunk keeps the prompt that the bank knows it by, if it does."""
    mine = self.number == self.count + 1
    known = jnp.sum(jnp.where(mine[..., None], self.prompt, 0), 1)
    now = jnp.where(jnp.any(mine, -1, keepdims=True), known, self.now)
    return self.replace(now=now)

  def plan(
    self,
    frames: int,
    backend: str = 'xla',
    theta: float = 10_000.0,
    grid: tuple[int, int] | None = None,
  ) -> BankPlan:
    """Plan of a tick over the next `frames` latent frames."""
    config, bank = self.config, self.config.bank
    if config.positions == 'relative':
      # A shorter chunk, a given first frame, ends where a whole one would.
      start = (self.rank + 1) * config.chunk - frames
    else:
      start = self.frame
    size = config.height, config.width, self.head_dim
    key = jax.random.fold_in(jax.random.key(bank.seed), 2 * self.count + 1)
    return BankPlan(
      rotation=rotation(start + jnp.arange(frames), *size, theta, grid),
      probes=sparse.probe_index(
        key, frames * config.tokens, bank.recent_probes, bank.random_probes
      ),
      rotated=config.positions == 'absolute',
      causal=bank.causal,
      backend=backend,
      split=config.split,
    )

  def updated(self, plan: BankPlan, caches) -> 'BankMemory':
    """Memory after a tick: the chunk's own keys, values and scores.

    Args:
      plan: the tick's plan.
      caches: per layer (K, V `[B, T, N, D]`, scores `[B, T]`); stacked, each
        with a leading axis L.
    """
    del plan
    tokens = self.config.chunk * self.config.tokens

    def own(layer: LayerBank, cache) -> LayerBank:
      k, v, scores = cache
      missing = tokens - scores.shape[-1]

      def aligned(x, axis):
        pads = [(0, 0)] * x.ndim
        pads[axis] = (missing, 0)
        return jnp.pad(x, pads)

      return layer.replace(
        own_k=aligned(k, -3), own_v=aligned(v, -3), scores=aligned(scores, -1)
      )

    if self.stacked:
      return self.replace(layers=own(self.layers, caches))
    return self.replace(layers=tuple(map(own, self.layers, caches)))

  def advance(self, frames: int) -> 'BankMemory':
    """Commits the current chunk: its important tokens enter the bank."""
    config, bank = self.config, self.config.bank
    tokens, size = config.chunk * config.tokens, frames * config.tokens
    slot = slot_to_write(self.number, self.prompt, self.now, self.count, config)
    rows = jnp.arange(len(slot))
    shared = None
    if bank.share_layers:
      if self.stacked:
        shared = jnp.sum(self.layers.scores, 0)
      else:
        shared = jnp.sum(jnp.stack([x.scores for x in self.layers]), 0)

    def store(layer: LayerBank) -> LayerBank:
      scores = layer.scores if shared is None else shared
      scores = scores[:, tokens - size :]
      if bank.cumulative:
        scores = sparse.cumulative_mean(scores)
      index, kept = sparse.select(scores, bank.tau, layer.place.shape[-1])
      index += tokens - size
      new = {
        'k': _take(layer.own_k, index),
        'v': _take(layer.own_v, index),
        'place': index,
        'kept': kept,
      }
      held = {
        n: getattr(layer, n).at[rows, slot].set(x) for n, x in new.items()
      }
      return layer.replace(**held)

    return self.replace(
      layers=self._each(store),
      number=self.number.at[rows, slot].set(self.count + 1),
      prompt=self.prompt.at[rows, slot].set(self.now),
      frame=self.frame + frames,
      count=self.count + 1,
    )

  def at(self, frame: jax.Array | int) -> 'BankMemory':
    """The memory as the chunk that starts at `frame` finds it.

    Later chunks, which it may hold already, are not seen; writing one of them
    again replaces it. Exact as long as nothing older was evicted since.
    """
    frame = jnp.asarray(frame, jnp.int32)
    return self.replace(frame=frame, count=-(-frame // self.config.chunk))

  def _each(self, change: Callable[[LayerBank], LayerBank]) -> Layers:
    if self.stacked:
      return jax.vmap(change)(self.layers)
    return tuple(map(change, self.layers))

  def _first(self) -> LayerBank:
    return self.layers if self.stacked else self.layers[0]


def _flat(x: jax.Array) -> jax.Array:
  """`[B, E, M, ...]` -> `[B, E M, ...]`."""
  return x.reshape(x.shape[0], -1, *x.shape[3:])


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
  """Tokens `[B, S, N, D]` at `index` `[B, C]` -> `[B, C, N, D]`."""
  return jnp.take_along_axis(x, index[:, :, None, None], 1)


def create(
  config: MemoryConfig,
  *,
  batch: int,
  layers: int,
  heads: int,
  head_dim: int,
  text_dim: int,
  dtype: jnp.dtype = jnp.float32,
  stacked: bool = False,
) -> Memory | BankMemory:
  """The empty memory that a config describes, at frame 0.

  Args:
    config: with or without a bank.
    batch: samples B.
    layers: L.
    heads: N.
    head_dim: D.
    text_dim: numbers of a prompt's mean embedding.
    dtype: of keys and values.
    stacked: layers in one array (training).
  """
  sizes = {'batch': batch, 'layers': layers, 'heads': heads}
  sizes |= {'head_dim': head_dim, 'dtype': dtype, 'stacked': stacked}
  if config.bank is None:
    return Memory.create(config, **sizes)
  return BankMemory.create(config, text_dim=text_dim, **sizes)
