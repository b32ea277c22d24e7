"""The stream: `init` once, `step` for every chunk, as pure functions.

    state = init(settings, params, text, key)
    state, latents = step(settings, params, state, ticks)

`rollout` scans the same chunk function (throughput); `jitted_step` compiles
it for a Python loop (streaming). Training rolls out with `denoise` too, so
that it cannot drift apart from inference.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.diffusion import flow, solvers
from jaxvid.diffusion.schedule import CLEAN, Run, Schedule
from jaxvid.errors import UserError
from jaxvid.memory import Memory, MemoryConfig
from jaxvid.models.dit import DiT, DiTConfig, TextKV, text_kv


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
  """

  config: DiTConfig
  memory: MemoryConfig
  schedule: Schedule
  guidance: float = 1.0
  scan: bool = False
  dtype: str = 'float32'
  remat: str | None = None

  @property
  def guided(self) -> bool:
    """Whether every tick runs the network on the negative prompt too."""
    return self.guidance != 1.0

  @property
  def network(self) -> DiT:
    dtype = jnp.dtype(self.dtype)
    return DiT(self.config, dtype, self.scan, self.remat)


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
  """

  memory: Memory
  text: TextKV
  key: jax.Array
  chunk: jax.Array


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


def encode_prompt(
  settings: Settings,
  params,
  text: jax.Array,
  negative: jax.Array | None = None,
) -> TextKV:
  """Text keys and values for a stream.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    text: text encoder output of the prompts `[B, <= text_len, text_dim]`.
    negative: the same of the negative prompts, needed under guidance.

  Raises:
    UserError: guidance without a negative prompt.
  """
  if settings.guided:
    if negative is None:
      raise UserError(
        f'guidance {settings.guidance:g} needs a negative prompt (it may be '
        'empty); use guidance 1 to go without'
      )
    rows = max(text.shape[1], negative.shape[1])
    text = jnp.concatenate(
      [
        jnp.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, 0)))
        for x in (text, negative)
      ]
    )
  return text_kv(settings.config, params, text, jnp.dtype(settings.dtype))


def init(
  settings: Settings,
  params,
  text: jax.Array,
  key: jax.Array,
  negative: jax.Array | None = None,
) -> State:
  """A stream before its first chunk; arguments as in `encode_prompt`."""
  config = settings.config
  memory = Memory.create(
    settings.memory,
    batch=text.shape[0] * (2 if settings.guided else 1),
    layers=config.num_layers,
    heads=config.num_heads,
    head_dim=config.head_dim,
    dtype=jnp.dtype(settings.dtype),
    stacked=settings.scan,
  )
  ready = encode_prompt(settings, params, text, negative)
  # A copy: steps consume their state, but not the caller's key.
  data = jnp.copy(jax.random.key_data(key))
  own = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
  return State(memory, ready, own, jnp.zeros((), jnp.int32))


def velocity(settings: Settings, params, x, t, text: TextKV, memory):
  """One tick with guidance: velocity `[B, F, H, W, C]` and the memory.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    x: noisy latents `[B, F, H, W, C]`.
    t: scalar time step.
    text: keys and values of the prompt(s).
    memory: past keys and values.
  """
  if settings.guided:
    x = jnp.concatenate([x, x])
  t = jnp.full(x.shape[:1], t, jnp.float32)
  v, memory = settings.network.apply({'params': params}, x, t, text, memory)
  if settings.guided:
    cond, uncond = jnp.split(v, 2)
    v = solvers.guide(cond, uncond, settings.guidance)
  return v, memory


def denoise(
  settings: Settings,
  params,
  state: State,
  ticks: Ticks,
  noise: jax.Array,
  renoise: jax.Array | None,
) -> tuple[State, jax.Array]:
  """One chunk from given noise; the memory is committed.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream.
    ticks: the chunk's ticks, K of them.
    noise: `[B, F, H, W, C]`, standard normal.
    renoise: `[K, B, F, H, W, C]`, fresh noise: after tick i < K - 1 entry i;
      for an extra tick at a level above 0 the last. None where neither is
      used (Euler ticks with a clean commit).

  Returns:
    The stream after the chunk and its clean latents `[B, F, H, W, C]`.
  """
  fresh = settings.schedule.update == 'renoise'

  def tick(carry, step):
    x, memory = carry
    t, sigma, next_sigma, eps = step
    v, memory = velocity(settings, params, x, t, state.text, memory)
    if fresh:
      x = flow.add_noise(flow.to_x0(x, v, sigma), eps, next_sigma)
    else:
      x = flow.euler_step(x, v, sigma, next_sigma)
    return (x, memory), None

  steps = (ticks.t, ticks.sigma, ticks.next_sigma, renoise if fresh else None)
  (x0, memory), _ = jax.lax.scan(tick, (noise, state.memory), steps)
  extra = settings.schedule.extra
  if extra is not None:
    x = x0
    if extra != CLEAN:
      x = flow.add_noise(x0, renoise[-1], ticks.context_sigma)
    _, memory = velocity(
      settings, params, x, ticks.context_t, state.text, memory
    )
  memory = memory.advance(noise.shape[1])
  return state.replace(memory=memory, chunk=state.chunk + 1), x0


def latent_shape(settings: Settings, state: State) -> tuple[int, ...]:
  """`[B, F, H, W, C]` of one chunk."""
  memory = settings.memory
  batch = state.text.k[0].shape[-4] // (2 if settings.guided else 1)
  _, rows, columns = settings.config.patch_size
  size = (rows * memory.height, columns * memory.width)
  return (batch, memory.chunk, *size, settings.config.out_dim)


def chunk_keys(state: State) -> jax.Array:
  """Keys of the next chunk: of its first noise, and of its ticks' noise."""
  return jax.random.split(jax.random.fold_in(state.key, state.chunk))


def tick_noise(key: jax.Array, i, shape: tuple[int, ...]) -> jax.Array:
  """Fresh noise after tick i; the same however many ticks there are."""
  return jax.random.normal(jax.random.fold_in(key, i), shape)


def step(
  settings: Settings, params, state: State, ticks: Ticks
) -> tuple[State, jax.Array]:
  """The next chunk, with noise drawn from the stream's key.

  Returns:
    The stream after the chunk and its clean latents `[B, F, H, W, C]`.
  """
  shape = latent_shape(settings, state)
  start, later = chunk_keys(state)
  noise = jax.random.normal(start, shape)
  renoise = None
  extra = settings.schedule.extra
  if settings.schedule.update == 'renoise' or extra not in (None, CLEAN):
    renoise = jax.vmap(lambda i: tick_noise(later, i, shape))(
      jnp.arange(len(ticks.t))
    )
  return denoise(settings, params, state, ticks, noise, renoise)


@functools.lru_cache(maxsize=16)
def jitted_step(settings: Settings):
  """`step` compiled once per tick count; the state is donated."""
  return jax.jit(functools.partial(step, settings), donate_argnums=1)


def rollout(
  settings: Settings, params, state: State, num_chunks: int, start: int = 0
) -> tuple[State, jax.Array]:
  """Many chunks by `lax.scan`, one scan per run of equal tick counts.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream.
    num_chunks: how many.
    start: index of the first chunk in the schedule (static).

  Returns:
    The stream and latents `[B, num_chunks * F, H, W, C]`.
  """
  pieces = []
  for run in settings.schedule.runs(num_chunks, start):
    ticks = Ticks(*map(jnp.asarray, run[1:]))
    body = functools.partial(step, settings, params)
    state, latents = jax.lax.scan(body, state, ticks)
    pieces.append(jnp.moveaxis(latents, 0, 1))
  clip = jnp.concatenate(pieces, 1)
  return state, clip.reshape(clip.shape[0], -1, *clip.shape[3:])


def prefill(
  settings: Settings, params, state: State, latents: jax.Array
) -> State:
  """Takes given latents into memory, at the schedule's context level.

  A stream may so begin with a first frame (one latent) or continue the
  user's video (any number). Latents go in chunk by chunk, causally.

  Args:
    settings: of the stream; `memory.aligned` must be False unless the number
      of latents is a multiple of the chunk.
    params: the transformer's parameters.
    state: the stream.
    latents: clean latents `[B, F, H, W, C]`.
  """
  chunk = settings.memory.chunk
  run = jitted_commit(settings)
  rest = latents.shape[1] % chunk
  sizes = ([rest] if rest else []) + [chunk] * (latents.shape[1] // chunk)
  if rest and settings.memory.aligned:
    raise ValueError('latents do not fill whole chunks of an aligned memory')
  at = 0
  for i, size in enumerate(sizes):
    state = run(params, state, latents[:, at : at + size], _salt(i))
    at += size
  return state


def _salt(i: int) -> int:
  # Chunks of the stream draw from 0, 1, ...; given latents from the far end.
  return 2**31 - 1 - i


@functools.lru_cache(maxsize=16)
def jitted_commit(settings: Settings):
  """Writes a given chunk `[B, F, H, W, C]` into memory and advances."""

  def commit(params, state, latents, salt):
    level = settings.schedule.context(0)
    key = jax.random.fold_in(state.key, salt)
    noise = jax.random.normal(key, latents.shape)
    x = flow.add_noise(latents, noise, jnp.float32(level.sigma))
    _, memory = velocity(settings, params, x, level.t, state.text, state.memory)
    return state.replace(memory=memory.advance(latents.shape[1]))

  return jax.jit(commit, donate_argnums=1)
