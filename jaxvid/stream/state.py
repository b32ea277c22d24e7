"""What a stream is: its settings, the ticks of a chunk, its state."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.diffusion.chunk_noise import FRESH, StartNoise
from jaxvid.diffusion.schedule import Run, Schedule
from jaxvid.errors import UserError
from jaxvid.memory import Memory, MemoryConfig
from jaxvid.models.conditioning import PLAIN, InputConfig, Inputs
from jaxvid.models.dit import DiT, DiTConfig, TextKV
from jaxvid.ops.attention import BACKENDS


@dataclasses.dataclass(frozen=True)
class Settings:
  """Everything static about a stream; hashable.

  Attributes:
    config: sizes of the transformer.
    memory: sink, window, chunk and positions.
    schedule: ticks, update and commit rule.
    guidance: classifier-free guidance weight w in u + w (c - u); 1 = off.
    scan: parameters and memory in the stacked layout (training).
    remat: see `DiT.remat`; for the layer scan of training.
    dtype: compute type of the network and type of the memory.
    fused: parameters in the streaming layout (`models.fused.fuse`), shifts
      and scales computed once per chunk.
    residual: type of the tokens between layers; empty: `dtype`.
    backend: of all attention, a name in `ops.attention.BACKENDS`; 'auto':
      what suits the device and the shapes.
    deferred: the extra tick of a chunk runs inside the next chunk's first
      tick (`stream.deferred`), so that its frames leave one pass earlier.
    noise: what chunks begin from.
    inputs: what joins the noisy latents, channel by channel.

  Raises:
    UserError: no such backend, nothing to defer, or a layout that cannot.
  """

  config: DiTConfig
  memory: MemoryConfig
  schedule: Schedule
  guidance: float = 1.0
  scan: bool = False
  dtype: str = 'float32'
  remat: str | None = None
  fused: bool = False
  residual: str = ''
  backend: str = 'auto'
  deferred: bool = False
  noise: StartNoise = FRESH
  inputs: InputConfig = PLAIN

  def __post_init__(self):
    if self.backend not in BACKENDS:
      raise UserError(
        f'backend {self.backend!r} is not one of {", ".join(BACKENDS)}'
      )
    if self.fused and self.scan:
      raise UserError('fused parameters are unrolled: choose fused or scan')
    if self.deferred and self.schedule.extra is None:
      raise UserError(
        f'schedule {self.schedule.name!r} has no extra tick to defer'
      )
    if self.config.linear and (self.deferred or self.memory.bank):
      raise UserError(
        'linear attention has a memory of its own: no deferred tick, no bank'
      )
    if self.deferred and (self.scan or self.memory.spare or self.memory.bank):
      raise UserError(
        'a deferred tick needs an unrolled memory without spare slots or bank'
      )
    if self.deferred and not self.inputs.plain:
      raise UserError('a deferred tick is for models without further inputs')
    if self.schedule.flight > 1 and (self.deferred or not self.inputs.plain):
      raise UserError(
        f'schedule {self.schedule.name!r} has several chunks in flight: not '
        'with deferred ticks, nor for models with further inputs'
      )

  @property
  def guided(self) -> bool:
    """Whether every tick runs the network on the negative prompt too."""
    return self.guidance != 1.0

  @property
  def network(self) -> DiT:
    return DiT(
      self.config,
      jnp.dtype(self.dtype),
      self.scan,
      self.remat,
      fused=self.fused,
      residual=jnp.dtype(self.residual or self.dtype),
      backend=self.backend,
    )


class Ticks(NamedTuple):
  """The ticks of one chunk as arrays, so that K alone decides a compilation.

  Attributes:
    t: time step of each tick, `[K]`, 0..1000.
    sigma: noise level of each tick's input, `[K]`.
    next_sigma: level each tick leads to, `[K]`; 0 after the last.
    context_t: time step at which the chunk stays in memory.
    context_sigma: its noise level.
  """

  t: jax.Array
  sigma: jax.Array
  next_sigma: jax.Array
  context_t: jax.Array
  context_sigma: jax.Array


@struct.dataclass
class State:
  """A stream between two chunks.

  Attributes:
    memory: past keys and values; batch 2 B under guidance (prompt, then
      negative prompt).
    text: the prompt's keys and values, same batch.
    key: the stream's key; chunk i draws from `fold_in(key, i)`.
    chunk: int32, index of the next chunk.
    pending: input of the newest chunk's extra tick `[B, F, H, W, C]` while
      that waits for the next chunk; `deferred.settle` runs it alone.
    flight: noisy latents of the chunks in flight, oldest first
      `[B, W F, H, W, C]`, of a staggered schedule.
    inputs: what the next chunk is shown; None for a model that takes the
      noisy latents alone.
  """

  memory: Memory
  text: TextKV
  key: jax.Array
  chunk: jax.Array
  pending: jax.Array | None = None
  flight: jax.Array | None = None
  inputs: Inputs | None = None


def ticks_of(run: Run, i: int) -> Ticks:
  """Ticks of the i-th chunk of a run."""
  return Ticks(
    run.t[i],
    run.sigma[i],
    run.next_sigma[i],
    run.context_t[i],
    run.context_sigma[i],
  )


def chunk_ticks(schedule: Schedule, chunk: int) -> Ticks:
  """Ticks of one chunk of a schedule."""
  return ticks_of(schedule.runs(1, chunk)[0], 0)


def kept_at(
  schedule: Schedule, chunk: jax.Array, starts: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Time step and noise level at which chunks of a stream were kept.

  Args:
    schedule: of the stream.
    chunk: their numbers, of any shape.
    starts: chunks that the schedule began with `[S]`, the latest ones of a
      stream in which it began again; None: with the first alone.
  """
  if starts is not None:
    begun = jnp.where(starts <= chunk[..., None], starts, 0)
    chunk = chunk - jnp.max(begun, -1)
  rows = len(schedule.rows)
  table = jnp.asarray([schedule.context(i) for i in range(rows)], jnp.float32)
  row = chunk % rows if schedule.cyclic else jnp.minimum(chunk, rows - 1)
  return table[row, 0], table[row, 1]
