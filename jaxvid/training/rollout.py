"""Rollouts for training: a student's own video, and its gradient.

A rollout streams chunks as inference does, but leaves each one at an *exit
tick*: the x0 promised there is the chunk, and what the loss is taken of. The
gradient needs two passes. `generate` rolls out without gradient and keeps
every chunk's input at its exit; `replay` runs those exit ticks again, with
gradient, against the final memory, whose spare slots still hold what each
chunk saw. Cached keys and values carry no gradient, so both passes together
are the backward pass through the rollout, at a fraction of its memory.

Sources: Self-Forcing, algorithm 1; DiagDistill, section 3.2 and appendix C.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxvid.diffusion import flow
from jaxvid.diffusion.schedule import Schedule
from jaxvid.errors import UserError
from jaxvid.memory import Memory
from jaxvid.models.dit import TextKV
from jaxvid.parallel.mesh import split_batch
from jaxvid.stream import stream
from jaxvid.stream.begin import begin
from jaxvid.stream.stream import Settings, State


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
  """How long a rollout is, where it exits, and what carries gradient.

  Attributes:
    chunks: chunks N of a rollout.
    gradient_chunks: the last so many carry gradient and are scored; they are
      the teacher's clip.
    exits: 'shared' draws one depth per rollout, u ~ U(0, 1), and leaves
      chunk i at tick floor(u K_i); 'each' draws one per chunk; 'last' never
      leaves early.
    truth_after: chunks further back than this are replaced in memory by
      those of a real clip (DiagDistill, figure 10 d); 0 = never.
  """

  chunks: int = 7
  gradient_chunks: int = 7
  exits: Literal['shared', 'each', 'last'] = 'shared'
  truth_after: int = 0

  def __post_init__(self):
    if not 1 <= self.gradient_chunks <= self.chunks:
      raise UserError(
        f'rollout: gradient_chunks must be between 1 and chunks '
        f'({self.chunks}), not {self.gradient_chunks}'
      )
    if self.truth_after < 0:
      raise UserError('rollout: truth_after must be >= 0')


class Table(NamedTuple):
  """Ticks of N chunks, padded to the longest; may be traced.

  Attributes:
    t: time steps `[N, K]`.
    sigma: noise level of each tick's input `[N, K]`.
    next_sigma: level each tick leads to `[N, K]`; 0 after a chunk's last.
    count: ticks of each chunk `[N]`.
    context_t: time step at which each chunk stays in memory `[N]`.
    context_sigma: its noise level `[N]`.
  """

  t: jax.Array | np.ndarray
  sigma: jax.Array | np.ndarray
  next_sigma: jax.Array | np.ndarray
  count: jax.Array | np.ndarray
  context_t: jax.Array | np.ndarray
  context_sigma: jax.Array | np.ndarray


def table_of(schedule: Schedule, num_chunks: int, start: int = 0) -> Table:
  """The ticks of chunks start .. start + num_chunks - 1.

  Raises:
    UserError: a schedule whose ticks are not re-noised; it cannot be left
      early.
  """
  if schedule.update != 'renoise' or schedule.bidirectional:
    raise UserError(
      f"schedule '{schedule.name}' has no exits: training rolls out schedules "
      'that re-noise after every tick'
    )
  rows = [schedule.row(i) for i in range(start, start + num_chunks)]
  longest = max(map(len, rows))
  t, sigma, following = np.zeros((3, num_chunks, longest), np.float32)
  for i, row in enumerate(rows):
    t[i, : len(row)] = [level.t for level in row]
    sigma[i, : len(row)] = [level.sigma for level in row]
    following[i, : len(row) - 1] = sigma[i, 1 : len(row)]
  context = [schedule.context(i) for i in range(start, start + num_chunks)]
  return Table(
    t,
    sigma,
    following,
    np.array([len(row) for row in rows], np.int32),
    np.array([level.t for level in context], np.float32),
    np.array([level.sigma for level in context], np.float32),
  )


def choose_rows(options: Table, index: jax.Array) -> Table:
  """Chunk i gets row `index[i]` of `options`: random digit strings."""
  return Table(*(jnp.asarray(column)[index] for column in options))


@struct.dataclass
class Record:
  """What `generate` keeps of N chunks, chunks in front.

  Attributes:
    noisy: input of each exit tick `[N, B, F, H, W, C]`.
    clean: x0 promised there, the chunk itself, same shape.
    t: time step of each exit tick `[N]`.
    sigma: its noise level `[N]`.
  """

  noisy: jax.Array
  clean: jax.Array
  t: jax.Array
  sigma: jax.Array

  def last(self, count: int) -> 'Record':
    """The last `count` chunks."""
    return jax.tree.map(lambda leaf: leaf[-count:], self)


def join(chunks: jax.Array) -> jax.Array:
  """`[N, B, F, H, W, C]` -> clip `[B, N F, H, W, C]`."""
  clip = jnp.moveaxis(chunks, 0, 1)
  return clip.reshape(clip.shape[0], -1, *clip.shape[3:])


def split(clip: jax.Array, chunk: int) -> jax.Array:
  """Clip `[B, N F, H, W, C]` -> `[N, B, F, H, W, C]`, F = `chunk`."""
  parts = clip.reshape(clip.shape[0], -1, chunk, *clip.shape[2:])
  return jnp.moveaxis(parts, 1, 0)


def depths(key: jax.Array, config: RolloutConfig) -> jax.Array:
  """Exit depths u `[N]` in [0, 1]; 1 means the last tick."""
  if config.exits == 'last':
    return jnp.ones(config.chunks)
  shape = (config.chunks,) if config.exits == 'each' else ()
  return jnp.broadcast_to(jax.random.uniform(key, shape), (config.chunks,))


def generate(
  settings: Settings,
  params,
  state: State,
  table: Table,
  depth: jax.Array,
  truth: jax.Array | None = None,
  truth_after: int = 0,
  texts: TextKV | None = None,
) -> tuple[State, Record]:
  """Rolls out without gradient.

  At depth 1 this is `stream.rollout`, noise for noise.

  Args:
    settings: of the stream; its schedule gives the commit rule, its memory
      needs spare slots for a later `replay`.
    params: the student's parameters.
    state: the stream before the first chunk.
    table: ticks of the N chunks.
    depth: from `depths`, `[N]`.
    truth: real clip `[B, N F, H, W, C]`, see `RolloutConfig.truth_after`.
    truth_after: chunks after which the real clip takes over in memory.
    texts: one prompt per chunk, all leaves with a leading axis N; None = the
      stream's own for all.

  Returns:
    The stream after the last chunk, and what `replay` needs.
  """
  params = jax.lax.stop_gradient(params)
  state, texts = jax.lax.stop_gradient((spread(state), texts))
  table = Table(*map(jnp.asarray, table))
  past = None
  if truth_after:
    if truth is None:
      raise UserError('truth_after needs real clips to take the past from')
    past = table, split(truth, settings.memory.chunk)
    past = jax.tree.map(lambda leaf: jnp.roll(leaf, truth_after, 0), past)

  def chunk(carry, inputs):
    row, u, i, past, text = inputs
    if text is not None:
      carry = carry.replace(text=text)
    carry, record = _chunk(settings, params, carry, row, u)
    if truth_after:
      carry = jax.lax.cond(
        i >= truth_after,
        lambda state: _replace(settings, params, state, past, truth_after),
        lambda state: state,
        carry,
      )
    return carry, record

  index = jnp.arange(len(table.count))
  return jax.lax.scan(chunk, state, (table, depth, index, past, texts))


def spread(state: State) -> State:
  """The memory, which begins as zeros, on the devices of its batch."""
  memory = state.memory
  if not isinstance(memory, Memory):
    return state
  k, v = split_batch((memory.k, memory.v), axis=int(memory.stacked))
  return state.replace(memory=memory.replace(k=k, v=v))


def _chunk(
  settings: Settings, params, state: State, row: Table, depth: jax.Array
) -> tuple[State, Record]:
  """One chunk up to its exit tick; commits it."""
  later = stream.chunk_keys(state)[1]
  shape = stream.latent_shape(settings, state)
  last = row.count - 1
  exit_tick = jnp.minimum(jnp.int32(depth * row.count), last)
  # Without an extra tick the last tick's keys and values stay; a chunk left
  # earlier gets them by one more pass, so that its context is as noisy as at
  # inference.
  again = settings.schedule.extra is not None or exit_tick < last

  def evaluate(i, carry):
    """Tick i of the chunk, or what comes after its exit: the pass to keep."""
    x, noisy, x0, memory = carry
    t = jnp.where(i <= exit_tick, row.t[i], row.context_t)
    v, memory = stream.velocity(settings, params, x, t, state.text, memory)
    x0 = jnp.where(i <= exit_tick, flow.to_x0(x, v, row.sigma[i]), x0)
    noisy = jnp.where(i <= exit_tick, x, noisy)
    leaving = i == exit_tick
    eps = stream.tick_noise(later, jnp.where(leaving, last, i), shape)
    level = jnp.where(leaving, row.context_sigma, row.next_sigma[i])
    return flow.add_noise(x0, split_batch(eps), level), noisy, x0, memory

  noise = split_batch(stream.start_noise(settings, state, shape))
  memory = begin(settings, state.memory, state.text)
  # One loop, and thus one copy of the network to compile.
  _, noisy, x0, memory = jax.lax.fori_loop(
    0, exit_tick + 1 + again, evaluate, (noise, noise, noise, memory)
  )
  record = Record(noisy, x0, row.t[exit_tick], row.sigma[exit_tick])
  memory = memory.advance(shape[1])
  return state.replace(memory=memory, chunk=state.chunk + 1), record


def write(settings, params, text, memory, row: Table, x0, eps) -> Memory:
  """Keys and values of finished latents at the chunk's context level."""
  x = flow.add_noise(x0, eps, row.context_sigma)
  return stream.velocity(settings, params, x, row.context_t, text, memory)[1]


def _replace(
  settings: Settings, params, state: State, past, back: int
) -> State:
  """Puts a real chunk in the place of the one generated `back` chunks ago."""
  row, real = past
  memory, frames = state.memory, settings.memory.chunk
  key = jax.random.fold_in(stream.chunk_keys(state)[1], 2**31 - 1)
  eps = jax.random.normal(key, real.shape)
  then = memory.at(memory.frame - (back + 1) * frames)
  then = write(settings, params, state.text, then, row, real, eps)
  return state.replace(memory=then.at(memory.frame))


def replay(
  settings: Settings,
  params,
  text: TextKV | None,
  memory: Memory,
  record: Record,
  texts: TextKV | None = None,
) -> jax.Array:
  """The exit ticks of a rollout's last chunks once more, with gradient.

  Args:
    settings: of the stream.
    params: the student's parameters; the gradient goes here.
    text: the prompt's keys and values, from the same parameters; None with
      `texts`.
    memory: after the last chunk; with at least the spare slots of the
      replayed chunks but one.
    record: of the chunks to replay, the last ones.
    texts: one prompt per replayed chunk, see `generate`.

  Returns:
    `[B, N F, H, W, C]`, equal to `record.clean` joined.
  """
  memory = jax.lax.stop_gradient(memory)
  count, frames = record.t.shape[0], record.noisy.shape[2]
  starts = memory.frame + (jnp.arange(count) - count) * frames

  @jax.checkpoint
  def one(params, text, start, item):
    past = begin(settings, memory.at(start), text)
    v, _ = stream.velocity(settings, params, item.noisy, item.t, text, past)
    return flow.to_x0(item.noisy, v, item.sigma)

  def body(carry, inputs):
    *place, own = inputs
    return carry, one(params, text if own is None else own, *place)

  record = jax.lax.stop_gradient(record)
  return join(jax.lax.scan(body, None, (starts, record, texts))[1])
