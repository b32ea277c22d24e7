"""Linear attention's memory: sums, as large after an hour as after a second.

`LinearMemory` serves where `Memory` does (stream, rollout, replay, re-cache),
with plans of its own. It remembers everything, fading nowhere, so that sink
and window mean nothing to it, but for a re-cache: that rebuilds the sums from
the latents that a window would hold. Source: see `ops.linear_attention`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxvid.memory.memory import MemoryConfig
from jaxvid.ops import linear_attention
from jaxvid.ops.linear_attention import Sums
from jaxvid.ops.rope import rotation


@struct.dataclass
class LinearPlan:
  """One chunk against the sums of those before it.

  Attributes:
    rotation: `[2, T, D / 2]` of the chunk's tokens.
    split: layout of the pairs, see `ops.rope.rotate`.
    backend: of attention to the text.
  """

  rotation: jax.Array
  split: bool = struct.field(pytree_node=False, default=False)
  backend: str = struct.field(pytree_node=False, default='xla')

  def attend(self, q, k, v, cache):
    """Attention `[B, T, N, D]`, and the chunk's own sums."""
    turn = functools.partial(
      linear_attention.features, rotation=self.rotation, split=self.split
    )
    own = linear_attention.sums(turn(k), v)
    known = jax.tree.map(jnp.add, own, Sums(*cache))
    return linear_attention.attend(turn(q), known).astype(q.dtype), tuple(own)


@struct.dataclass
class LinearRecachePlan:
  """Frames that chunks may attend, each chunk seeing those before it.

  Attributes:
    rotation: `[2, T, D / 2]` of all tokens.
    chunk: int32 `[F]`, which chunk each frame belongs to, rising.
    real: bool `[F]`, frames that exist.
    tokens: tokens per latent frame.
    split: as of `LinearPlan`.
    backend: as of `LinearPlan`.
  """

  rotation: jax.Array
  chunk: jax.Array
  real: jax.Array
  tokens: int = struct.field(pytree_node=False)
  split: bool = struct.field(pytree_node=False, default=False)
  backend: str = struct.field(pytree_node=False, default='xla')

  def attend(self, q, k, v, cache):
    """Attention `[B, T, N, D]`, and the sums over all frames."""
    del cache
    turn = functools.partial(
      linear_attention.features, rotation=self.rotation, split=self.split
    )
    keep = jnp.repeat(self.real, self.tokens)[:, None, None]
    k = jax.tree.map(lambda x: jnp.where(keep, x, 0), turn(k))

    def frames(x):
      return x.reshape(x.shape[0], -1, self.tokens, *x.shape[2:])

    each = linear_attention.sums(jax.tree.map(frames, k), frames(v))
    until = jax.tree.map(functools.partial(jnp.cumsum, axis=1), each)
    # A frame sees its chunk to the end.
    last = jnp.searchsorted(self.chunk, self.chunk, side='right') - 1
    seen = jax.tree.map(lambda x: x[:, last], until)
    out = linear_attention.attend(jax.tree.map(frames, turn(q)), seen)
    whole = jax.tree.map(lambda x: x[:, -1], until)
    return out.reshape(q.shape).astype(q.dtype), tuple(whole)


@struct.dataclass
class LinearMemory:
  """Sums over past tokens, and over those of the current chunk.

  Attributes:
    past: per layer `Sums` of the chunks before the current one, and, with
      spare slots, before each of the last ones: `[M, B, N, D, D]` and
      `[M, B, N, D]`; a tuple of L, or one with a leading axis `[L]`.
    own: per layer `Sums` that the last tick left, without the axis M.
    frame: int32 scalar, first latent frame of the current chunk.
    config: static shape.
  """

  past: tuple[Sums, ...] | Sums
  own: tuple[Sums, ...] | Sums
  frame: jax.Array
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
    stacked: bool = False,
  ) -> 'LinearMemory':
    """An empty memory at frame 0; always float32."""
    # A replay wants the sums before each of its chunks, and those after.
    kept = config.spare // config.chunk + 2 if config.spare else 1

    def one(*lead: int) -> Sums:
      shape = (*lead, batch, heads, head_dim)
      return Sums(jnp.zeros((*shape, head_dim)), jnp.zeros(shape))

    if stacked:
      past, own = one(layers, kept), one(layers)
    else:
      past = tuple(one(kept) for _ in range(layers))
      own = tuple(one() for _ in range(layers))
    return cls(past, own, jnp.zeros((), jnp.int32), config)

  @property
  def stacked(self) -> bool:
    """Whether layers share one array (the training layout)."""
    return isinstance(self.past, Sums)

  @property
  def k(self):
    """Sums of values before the current chunk; what layers find as keys."""
    return self._before().values if self.stacked else None

  @property
  def v(self):
    """Sums of keys before the current chunk."""
    return self._before().keys if self.stacked else None

  def layer(self, i: int) -> Sums:
    """Sums before the current chunk, of layer i."""
    return jax.tree.map(lambda x: x[self._place()], self.past[i])

  def plan(
    self,
    frames: int,
    backend: str = 'xla',
    theta: float = 10_000.0,
    grid: tuple[int, int] | None = None,
  ) -> LinearPlan:
    """Plan of a tick over the next `frames` latent frames."""
    index = self.frame + jnp.arange(frames)
    return LinearPlan(
      self._rotation(index, theta, grid), self.config.split, backend
    )

  def recache_plan(
    self,
    frames: jax.Array,
    backend: str = 'xla',
    theta: float = 10_000.0,
    grid: tuple[int, int] | None = None,
  ) -> LinearRecachePlan:
    """Plan that makes the sums anew from frames `[F]`, see `recache`."""
    real = frames < self.frame
    chunk = jnp.where(real, (frames - self.frame) // self.config.chunk, 1)
    return LinearRecachePlan(
      self._rotation(frames, theta, grid),
      chunk,
      real,
      self.config.tokens,
      self.config.split,
      backend,
    )

  def updated(self, plan, caches) -> 'LinearMemory':
    """Memory after a tick, from the sums that the layers returned."""
    own = Sums(*caches) if self.stacked else tuple(Sums(*c) for c in caches)
    if isinstance(plan, LinearRecachePlan):
      return self.replace(past=self._written(own, self._place()))
    return self.replace(own=own)

  def advance(self, frames: int) -> 'LinearMemory':
    """Commits the current chunk: the next one starts `frames` later."""
    after = self.replace(frame=self.frame + frames)
    if self.stacked:
      before = self._before()
    else:
      before = tuple(self.layer(i) for i in range(len(self.past)))
    whole = jax.tree.map(jnp.add, before, self.own)
    return after.replace(past=self._written(whole, after._place()))

  def at(self, frame: jax.Array | int) -> 'LinearMemory':
    """The memory as the chunk that starts at `frame` finds it."""
    return self.replace(frame=jnp.asarray(frame, jnp.int32))

  def _kept(self) -> int:
    axis = 1 if self.stacked else 0
    return jax.tree.leaves(self.past)[0].shape[axis]

  def _place(self) -> jax.Array:
    return (self.frame // self.config.chunk) % self._kept()

  def _before(self) -> Sums:
    return jax.tree.map(lambda x: x[:, self._place()], self.past)

  def _written(self, new, place):
    if self.stacked:
      return jax.tree.map(lambda x, y: x.at[:, place].set(y), self.past, new)
    return jax.tree.map(lambda x, y: x.at[place].set(y), self.past, new)

  def _rotation(self, index, theta, grid):
    config = self.config
    head_dim = jax.tree.leaves(self.own)[0].shape[-1]
    return rotation(index, config.height, config.width, head_dim, theta, grid)


@struct.dataclass
class LinearParallelPlan:
  """All tokens in one pass, no memory: teachers and parallel training.

  Attributes:
    rotation: `[2, T, D / 2]`.
    forcing: 'none' (everything sees everything), 'diffusion' (each chunk sees
      itself and those before it) or 'teacher' (the same in a clean clip, and
      a noisy one behind it whose chunks see themselves and the clean ones
      before).
    size: tokens per chunk.
    split: layout of the pairs.
    backend: of attention to the text.
  """

  rotation: jax.Array
  forcing: str = struct.field(pytree_node=False, default='none')
  size: int = struct.field(pytree_node=False, default=0)
  split: bool = struct.field(pytree_node=False, default=False)
  backend: str = struct.field(pytree_node=False, default='xla')

  def attend(self, q, k, v, cache):
    """Returns attention `[B, T, N, D]` and the (absent) cache."""
    turn = functools.partial(
      linear_attention.features, rotation=self.rotation, split=self.split
    )
    fq, fk = turn(q), turn(k)
    if self.forcing == 'none':
      out = linear_attention.attend(fq, linear_attention.sums(fk, v))
      return out.astype(q.dtype), cache
    length = q.shape[1] if self.forcing == 'diffusion' else q.shape[1] // 2
    chunks = -(-length // self.size)
    split = functools.partial(_split, length=length, size=self.size)
    each = linear_attention.sums(jax.tree.map(split, fk), split(v))
    until = jax.tree.map(
      functools.partial(_until, chunks=chunks, forcing=self.forcing), each
    )
    out = linear_attention.attend(jax.tree.map(split, fq), until)
    return _join(out, length, q.shape[1]).astype(q.dtype), cache


def _split(x, length: int, size: int):
  """`[B, clips x length, ...]` -> `[B, clips x chunks, size, ...]`."""
  batch, total, *tail = x.shape
  x = x.reshape(batch, total // length, length, *tail)
  rest = -length % size  # Nothing: features 0 count for nothing.
  x = jnp.pad(x, [(0, 0), (0, 0), (0, rest), *[(0, 0)] * len(tail)])
  return x.reshape(batch, -1, size, *tail)


def _join(x, length: int, total: int):
  """The inverse of `_split`."""
  batch, _, _, *tail = x.shape
  x = x.reshape(batch, total // length, -1, *tail)[:, :, :length]
  return x.reshape(batch, total, *tail)


def _until(each, chunks: int, forcing: str):
  """Sums `[B, clips x chunks, ...]` that the queries of each chunk see."""
  clean = jnp.cumsum(each[:, :chunks], 1)
  if forcing == 'diffusion':
    return clean
  noisy = clean - each[:, :chunks] + each[:, chunks:]
  return jnp.concatenate([clean, noisy], 1)


def parallel(
  frames: jax.Array | np.ndarray,
  height: int,
  width: int,
  head_dim: int,
  forcing: str = 'none',
  chunk: int = 1,
  backend: str = 'xla',
  theta: float = 10_000.0,
  grid: tuple[int, int] | None = None,
  split: bool = False,
) -> LinearParallelPlan:
  """Plan for latent frames at positions `frames` `[F]`, all in one pass.

  Args:
    frames: positions; for 'teacher' they run over the clip twice.
    height: rows of tokens.
    width: columns of tokens.
    head_dim: D.
    forcing: see `LinearParallelPlan`.
    chunk: latent frames per chunk.
    backend: of attention to the text.
    theta: of the rotary frequencies.
    grid: see `ops.rope.rotation`.
    split: layout of the pairs.
  """
  turn = rotation(frames, height, width, head_dim, theta, grid)
  size = chunk * height * width
  return LinearParallelPlan(turn, forcing, size, split, backend)
