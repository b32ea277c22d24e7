"""The memory of a stream: sink frames, then a rolling window, per layer."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.errors import UserError
from jaxvid.memory.bank_config import BankConfig
from jaxvid.memory.plan import CachedPlan
from jaxvid.memory.slots import (
  frame_of_slots,
  oldest_frame,
  rank_of_slots,
  slot_of,
)
from jaxvid.ops.attention import fp8
from jaxvid.ops.rope import rotation


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
  """Shape of a memory. SxWy is `sink=x, window=y`.

  Attributes:
    height: token rows per latent frame.
    width: token columns per latent frame.
    sink: first latent frames, kept forever.
    window: latent frames of the rolling window, the current chunk included.
    chunk: latent frames denoised together.
    positions: 'absolute' (keys stored rotated by their frame index) or
      'relative' (rotated at read by their order in memory: nothing grows
      with the length of the stream).
    aligned: chunks start at multiples of `chunk`; False when a stream begins
      with a single given frame.
    spare: further ring slots. Frames in them are out of the window, hence
      not attended, but not overwritten yet: a training clip replays its
      chunks against one final memory.
    split: keys are stored with rotary pairs split (see `ops.rope.rotate`), as
      a network with fused parameters makes them.
    bank: past chunks are seen through a bank (`BankMemory`); None: a ring.
    key_dtype: '' keeps keys in the compute type, 'e4m3' in 8-bit floats: half
      the room, and what attention with 8-bit scores reads without a cast.
  """

  height: int
  width: int
  sink: int = 3
  window: int = 9
  chunk: int = 3
  positions: str = 'absolute'
  aligned: bool = True
  spare: int = 0
  split: bool = False
  bank: BankConfig | None = None
  key_dtype: Literal['', 'e4m3'] = ''

  def __post_init__(self):
    if self.positions not in ('absolute', 'relative'):
      raise UserError(
        f"positions must be 'absolute' or 'relative', not {self.positions!r}"
      )
    if min(self.chunk, self.window) < 1 or min(self.sink, self.spare) < 0:
      raise UserError(
        f'impossible memory: chunk {self.chunk}, sink {self.sink}, '
        f'window {self.window}, spare {self.spare}'
      )
    if self.window < self.chunk:
      raise UserError(
        f'the window counts the current chunk: window {self.window} is '
        f'smaller than chunk {self.chunk}'
      )
    if self.key_dtype not in ('', 'e4m3'):
      raise UserError(f"key_dtype must be '' or 'e4m3', not {self.key_dtype!r}")
    if self.key_dtype and (self.bank is not None or self.spare):
      raise UserError('key_dtype=e4m3 is for streams without a bank')
    if self.bank is not None:
      self.bank.check(self.chunk, self.sink, self.window, self.spare)

  @property
  def capacity(self) -> int:
    """Latent frames held: sink + window (upstream's local_attn_size)."""
    return self.sink + self.window + self.spare

  @property
  def seen(self) -> int:
    """Past chunks that a chunk sees at most, of a memory with a bank."""
    past = (self.sink + self.window) // self.chunk - 1
    if self.bank is None:
      return past
    return min(past + self.bank.retrieved, self.bank.capacity)

  @property
  def tokens(self) -> int:
    """Tokens per latent frame."""
    return self.height * self.width

  def contiguous(self, frames: int) -> bool:
    """Whether every chunk of `frames` frames lands in one run of slots."""
    ring = self.window + self.spare
    ring_fits = ring % frames == 0 and self.sink % frames == 0
    return frames == 1 or (self.aligned and frames == self.chunk and ring_fits)


@struct.dataclass
class Memory:
  """Keys and values of past frames, and how many frames have been committed.

  Attributes:
    k: keys. A tuple of L arrays `[B, S, N, D]` (streaming: one buffer per
      layer, updated in place) or one array `[L, B, S, N, D]` (training under
      a layer scan). S = capacity x tokens.
    v: values, same layout.
    frame: int32 scalar, first latent frame of the current chunk.
    config: static shape of the memory.
  """

  k: tuple[jax.Array, ...] | jax.Array
  v: tuple[jax.Array, ...] | jax.Array
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
    dtype: jnp.dtype = jnp.float32,
    stacked: bool = False,
  ) -> 'Memory':
    """An empty memory at frame 0."""
    shape = (batch, config.capacity * config.tokens, heads, head_dim)

    def buffers(dtype):
      if stacked:
        return jnp.zeros((layers, *shape), dtype)
      return tuple(jnp.zeros(shape, dtype) for _ in range(layers))

    k = buffers(fp8.E4M3 if config.key_dtype else dtype)
    return cls(k, buffers(dtype), jnp.zeros((), jnp.int32), config)

  @property
  def stacked(self) -> bool:
    """Whether layers share one array (the training layout)."""
    return not isinstance(self.k, tuple)

  def plan(
    self,
    frames: int,
    backend: str = 'xla',
    theta: float = 10_000.0,
    grid: tuple[int, int] | None = None,
  ) -> CachedPlan:
    """Plan of a tick over the next `frames` latent frames.

    Every tick of a chunk makes the same plan, so it overwrites the same
    slots; `advance` commits what the last one left there.
    """
    config = self.config
    index = self.frame + jnp.arange(frames)
    slots = slot_of(index, config.sink, config.capacity)
    contiguous = config.contiguous(frames)
    return self.plan_at(
      index, slots, self.frame, contiguous, backend, theta, grid
    )

  def plan_at(
    self,
    index,
    slots,
    before,
    contiguous,
    backend='xla',
    theta=10_000.0,
    grid=None,
  ) -> CachedPlan:
    """Plan for frames `index` `[F]` in explicit `slots` `[F]`."""
    config = self.config
    end = index[-1] + 1
    size = (config.height, config.width, self._head_dim(), theta, grid)
    oldest = oldest_frame(end, config.sink, config.window)
    slot_rotation = visible = None
    if config.positions == 'relative':
      ranks = rank_of_slots(end, config.sink, config.capacity, oldest)
      slot_rotation = rotation(ranks, *size)
      index = ranks[jnp.minimum(slots, config.capacity - 1)]
    if config.spare:
      frame = frame_of_slots(before, config.sink, config.capacity)
      in_window = (frame >= oldest) & (frame < before)
      is_sink = jnp.arange(config.capacity) < config.sink
      visible = jnp.where(is_sink, frame < before, in_window)
    return CachedPlan(
      slots=slots,
      before=jnp.minimum(before, config.capacity),
      valid=jnp.minimum(end, config.capacity),
      visible=visible,
      q_rotation=rotation(index, *size),
      slot_rotation=slot_rotation,
      tokens=config.tokens,
      contiguous=contiguous,
      in_place=not self.stacked and not self.config.spare,
      backend=backend,
      split=config.split,
    )

  def layer(self, i: int) -> tuple[jax.Array, jax.Array]:
    """K and V `[B, S, N, D]` of layer i."""
    return self.k[i], self.v[i]

  def updated(self, plan: CachedPlan, caches) -> 'Memory':
    """Memory after a tick, from what the layers returned.

    Args:
      plan: the tick's plan.
      caches: per layer (K, V): the buffers of a plan that writes in place,
        else the chunk's own `[B, T, N, D]`; stacked, `[L, B, T, N, D]`.
    """
    if self.stacked:
      k, v = caches
      return self.replace(k=plan.write(self.k, k), v=plan.write(self.v, v))
    k, v = zip(*caches, strict=True)
    if not plan.in_place:
      k = tuple(map(plan.write, self.k, k))
      v = tuple(map(plan.write, self.v, v))
    return self.replace(k=k, v=v)

  def advance(self, frames: int) -> 'Memory':
    """Commits the current chunk: the next one starts `frames` later."""
    return self.replace(frame=self.frame + frames)

  def at(self, frame: jax.Array | int) -> 'Memory':
    """The memory as the chunk that starts at `frame` finds it.

    For a memory with spare slots: frames `frame` and later, which it may hold
    already, are not attended. Nothing needed is gone as long as at most
    `spare + chunk` frames have been written from `frame` on.
    """
    return self.replace(frame=jnp.asarray(frame, jnp.int32))

  def _head_dim(self) -> int:
    return (self.k if self.stacked else self.k[0]).shape[-1]
