"""Changing the prompt of a running stream, at a chunk boundary.

What becomes of the memory is a choice (LongLive, table 4): it is made anew
from the video's own latents (`recache`, or `upstream` as its release does),
kept as it is, or emptied. `Past` holds the latents that this needs.

    past = new_past(settings, state)
    state, x0 = step(settings, params, state, ticks)
    past = remember(settings, past, state, x0)
    state, past = switch(settings, params, state, past, text, SwitchConfig())
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.memory import held_frames, recache_plan, upstream_recache_plan
from jaxvid.models.dit import TextKV
from jaxvid.stream import deferred, stream
from jaxvid.stream.bank_recache import recache_bank
from jaxvid.stream.state import kept_at
from jaxvid.stream.stream import Settings, State

CACHES = ('recache', 'upstream', 'keep', 'none')


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
  """What becomes of memory and ticks when the prompt changes.

  Attributes:
    cache: 'recache' makes it anew, chunk by chunk, at the context level of
      the schedule; 'upstream' in one pass in both directions, from clean
      latents; 'keep' leaves it, 'none' empties it.
    sink: 'keep' or 'rewrite' the keys and values of the sink (of 'upstream',
      whose released setting is 'keep').
    again: the schedule begins again, so that what is new gets as many ticks
      as a video's first chunks (ours; for schedules like 4322222).
  """

  cache: Literal['recache', 'upstream', 'keep', 'none'] = 'recache'
  sink: Literal['keep', 'rewrite'] = 'keep'
  again: bool = False

  def __post_init__(self):
    if self.cache not in CACHES:
      raise UserError(
        f'switch.cache must be one of {", ".join(CACHES)}, not {self.cache!r}'
      )
    if self.sink not in ('keep', 'rewrite'):
      raise UserError(
        f"switch.sink must be 'keep' or 'rewrite', not {self.sink!r}"
      )


@struct.dataclass
class Past:
  """Clean latents of a video that its memory may be made anew from.

  Attributes:
    sink: its first frames `[B, S, H, W, C]`.
    recent: the newest ones `[B, R, H, W, C]`, frame f in place f modulo R;
      R = sink + window, as many as the published re-cache takes.
  """

  sink: jax.Array
  recent: jax.Array


def new_past(settings: Settings, state: State) -> Past:
  """That of a stream without frames."""
  batch, _, *size = stream.latent_shape(settings, state)
  memory = settings.memory
  count = memory.sink + memory.window
  return Past(
    jnp.zeros((batch, memory.sink, *size)), jnp.zeros((batch, count, *size))
  )


def remember(
  settings: Settings, past: Past, state: State, latents: jax.Array
) -> Past:
  """Adds latents `[B, F, H, W, C]`, the newest ones of `state`."""
  count = latents.shape[1]
  frames = state.memory.frame - count + jnp.arange(count)
  sink, recent = past.sink, past.recent
  # Out of many frames the last ones stay.
  keep = min(count, recent.shape[1])
  place = frames[-keep:] % recent.shape[1]
  recent = recent.at[:, place].set(latents[:, -keep:])
  if settings.memory.sink:
    sink = sink.at[:, frames].set(latents, mode='drop')
  return Past(sink, recent)


def held(settings: Settings, past: Past, state: State) -> jax.Array:
  """Latents of `memory.held_frames` `[B, sink + window, H, W, C]`."""
  frames = held_frames(settings.memory, state.memory.frame)
  sink = settings.memory.sink
  rest = past.recent[:, frames[sink:] % past.recent.shape[1]]
  return jnp.concatenate([past.sink, rest], 1)


def newest(past: Past, frame: jax.Array, count: int) -> jax.Array:
  """The last `count` latents before `frame`, oldest first."""
  frames = frame - count + jnp.arange(count)
  return past.recent[:, frames % past.recent.shape[1]]


def recache(
  settings: Settings,
  params,
  state: State,
  past: Past,
  text: TextKV,
  starts: jax.Array | None = None,
) -> State:
  """Makes the memory anew with another prompt, as if it had always been that.

  Every chunk attends those before it, at the noise level at which the
  schedule keeps chunks, in one pass of all the frames that a full memory
  holds. Noise, where there is any, is drawn afresh. A memory with a bank is
  made anew as far as the next chunk sees it for certain (`bank_recache`).

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream at a chunk boundary.
    past: its latents.
    text: keys and values of the new prompt (and of the negative one).
    starts: chunks that the schedule began with `[S]`, the latest ones of a
      stream in which it began again; None: with the first alone.
  """
  if settings.memory.bank is not None:
    count = settings.memory.window - settings.memory.chunk
    recent = newest(past, state.memory.frame, count)
    parts = settings, params, state, past.sink, recent, text, starts
    return recache_bank(*parts)
  x = held(settings, past, state)
  t, sigma = _levels(settings, state, starts)
  if settings.schedule.extra is None or settings.schedule.extra.sigma:
    # No chunk of the stream draws from this key.
    key = jax.random.fold_in(stream.chunk_keys(state)[1], 2**31 - 1)
    noise = jax.random.normal(key, x.shape)
    x = flow.add_noise(x, noise, jnp.broadcast_to(sigma, x.shape[:2]))
  plan = recache_plan(state.memory, *_attention(settings))
  _, memory = stream.velocity(settings, params, x, t, text, state.memory, plan)
  # A tick that was waiting has been done with the others.
  return state.replace(memory=memory, text=text, pending=None)


def _attention(settings: Settings):
  config = settings.config
  return settings.backend, config.rope_theta, config.rope_grid


def _levels(
  settings: Settings, state: State, starts: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Time step and noise level at which each held frame is kept, `[F]`."""
  memory = settings.memory
  behind = held_frames(memory, state.memory.frame) - state.memory.frame
  # Given latents count as chunks of their own before the first.
  chunk = jnp.maximum(state.chunk + behind // memory.chunk, 0)
  return kept_at(settings.schedule, chunk, starts)


def upstream_recache(
  settings: Settings,
  params,
  state: State,
  text: TextKV,
  latents: jax.Array,
  keep_sink: bool,
) -> State:
  """Switches the prompt as LongLive's released pipeline does.

  One pass over the newest latents at t = 0 with the new prompt rewrites
  their keys and values; all frames attend each other in both directions.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream at a chunk boundary.
    text: keys and values of the new prompt.
    latents: the last min(capacity, frames so far) clean latents
      `[B, F, H, W, C]`.
    keep_sink: keep the sink's keys and values of the old prompt
      (`global_sink: true`), or let the oldest given latents become the sink.
  """
  plan = upstream_recache_plan(
    state.memory, latents.shape[1], keep_sink, *_attention(settings)
  )
  _, memory = stream.velocity(
    settings, params, latents, 0.0, text, state.memory, plan
  )
  return state.replace(memory=memory, text=text, pending=None)


def emptied(state: State, text: TextKV) -> State:
  """The stream without its memory: the next chunk is a video's first."""
  zeros = jax.tree.map(jnp.zeros_like, state.memory)
  return state.replace(memory=zeros, text=text, pending=None)


@functools.lru_cache(maxsize=16)
def jitted_upstream_recache(settings: Settings, keep_sink: bool):
  """`upstream_recache(params, state, text, latents)`, compiled."""

  def run(params, state, text, latents):
    return upstream_recache(settings, params, state, text, latents, keep_sink)

  return jax.jit(run, donate_argnums=1)


@functools.lru_cache(maxsize=16)
def jitted_recache(settings: Settings):
  """`recache(params, state, past, text, starts)`; the state is donated."""
  return jax.jit(functools.partial(recache, settings), donate_argnums=1)


@functools.lru_cache(maxsize=16)
def jitted_remember(settings: Settings):
  """`remember(past, state, latents)`, compiled; the past is donated."""
  return jax.jit(functools.partial(remember, settings), donate_argnums=0)


def switch(
  settings: Settings,
  params,
  state: State,
  past: Past,
  text: TextKV,
  config: SwitchConfig,
  starts: Sequence[int] = (0,),
) -> tuple[State, Past]:
  """Changes the prompt at a chunk boundary; not for use under `jit`.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream; consumed.
    past: its latents.
    text: keys and values of the new prompt, from `stream.encode_prompt`.
    config: what becomes of the memory.
    starts: chunks that the schedule has begun with so far.

  Returns:
    The stream and its latents, of which 'none' leaves nothing.

  Raises:
    UserError: a model whose memory cannot be made anew like that.
  """
  frames = int(state.memory.frame)
  if config.cache == 'keep' or not frames:
    state = deferred.settle(settings, params, state)
    return state.replace(text=text), past
  if config.cache == 'none':
    return emptied(state, text), jax.tree.map(jnp.zeros_like, past)
  program, inputs = recache_program(
    settings, params, state, past, text, config, starts, frames
  )
  return program(*inputs), past


def recache_program(
  settings, params, state, past, text, config, starts, frames: int
):
  """What `switch`, whose other arguments these are, runs to make memory anew.

  Args:
    frames: latent frames of the video so far; many: the memory is full.

  Returns:
    A jitted program and what it takes.
  """
  if not settings.inputs.plain:
    raise UserError(
      f"switch.cache='{config.cache}' knows no further inputs (recycled "
      "frames, pictures, controls); use 'keep' or 'none'"
    )
  if settings.memory.bank is not None and config.cache == 'upstream':
    raise UserError(
      "switch.cache='upstream' knows no bank; use 'recache', 'keep' or 'none'"
    )
  if config.cache == 'upstream' and settings.config.linear:
    raise UserError(
      "switch.cache='upstream' rewrites keys and values, which linear "
      "attention does not keep; use 'recache'"
    )
  # The tick that waits, if one does, is done with the others.
  state = state.replace(pending=None)
  if config.cache == 'recache':
    # As many as a memory can see, so that one program serves all.
    latest = [0] * settings.memory.capacity + list(starts)
    begun = jnp.asarray(latest[-settings.memory.capacity :], jnp.int32)
    return jitted_recache(settings), (params, state, past, text, begun)
  count = min(frames, settings.memory.sink + settings.memory.window)
  latents = newest(past, state.memory.frame, count)
  program = jitted_upstream_recache(settings, config.sink == 'keep')
  return program, (params, state, text, latents)
