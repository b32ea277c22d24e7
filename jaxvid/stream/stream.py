"""The stream: `init` once, `step` for every chunk, as pure functions.

    state = init(settings, params, text, key)
    state, latents = step(settings, params, state, ticks)

`rollout` scans the same chunk function (throughput); `jitted_step` compiles
it for a Python loop (streaming). Training rolls out with `denoise` too, so
that it cannot drift apart from inference.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.diffusion.schedule import CLEAN
from jaxvid.errors import UserError
from jaxvid.memory import LinearMemory, bank
from jaxvid.models import conditioning
from jaxvid.models.dit import TextKV, text_kv
from jaxvid.stream import deferred, staggered
from jaxvid.stream.begin import begin
from jaxvid.stream.draws import (
  chunk_keys,
  latent_shape,
  start_noise,
  tick_noise,
)
from jaxvid.stream.state import (
  Settings,
  State,
  Ticks,
  chunk_ticks,
  ticks_of,
)
from jaxvid.stream.tick import chunk_plan, levels, velocity

__all__ = [
  'Settings',
  'State',
  'Ticks',
  'chunk_keys',
  'chunk_ticks',
  'compiler_options',
  'denoise',
  'encode_prompt',
  'init',
  'jitted_commit',
  'jitted_step',
  'latent_shape',
  'levels',
  'new_memory',
  'prefill',
  'rollout',
  'start_from',
  'start_noise',
  'step',
  'tick_noise',
  'ticks_of',
  'velocity',
]


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
  memory = new_memory(settings, text.shape[0] * (2 if settings.guided else 1))
  ready = encode_prompt(settings, params, text, negative)
  # A copy: steps consume their state, but not the caller's key.
  data = jnp.copy(jax.random.key_data(key))
  own = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
  state = State(memory, ready, own, jnp.zeros((), jnp.int32))
  return state if settings.inputs.plain else start_from(settings, state)


def start_from(
  settings: Settings, state: State, frame: jax.Array | None = None
) -> State:
  """A new stream that starts from a latent frame `[B, 1, H, W, C]`.

  For models that are shown a frame by channel: it is no part of the stream,
  whose first chunk comes right after it. None shows zeros.
  """
  shape = latent_shape(settings, state)
  inputs = conditioning.start(settings.inputs, shape, frame)
  # Copies: steps consume their state, but not the caller's frame.
  return state.replace(inputs=jax.tree.map(jnp.copy, inputs))


def new_memory(settings: Settings, batch: int):
  """An empty memory for `batch` samples, of the kind that the network has.

  Raises:
    UserError: 8-bit keys for linear attention, which keeps none.
  """
  config = settings.config
  memory = dataclasses.replace(settings.memory, split=settings.fused)
  sizes: dict[str, int] = {
    'batch': batch,
    'layers': config.num_layers,
    'heads': config.num_heads,
    'head_dim': config.head_dim,
  }
  if config.linear:
    if memory.key_dtype:
      raise UserError('linear attention keeps no keys; leave key_dtype empty')
    return LinearMemory.create(memory, **sizes, stacked=settings.scan)
  return bank.create(
    memory,
    **sizes,
    text_dim=config.text_dim,
    dtype=jnp.dtype(settings.dtype),
    stacked=settings.scan,
  )


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
  t, context_t = levels(settings, params, ticks)

  def move(x, v, step):
    _, sigma, next_sigma, eps = step
    if fresh:
      return flow.add_noise(flow.to_x0(x, v, sigma), eps, next_sigma)
    return flow.euler_step(x, v, sigma, next_sigma)

  def tick(carry, step):
    x, memory = carry
    v, memory = velocity(
      settings, params, x, step[0], state.text, memory, plan, state.inputs
    )
    return (move(x, v, step), memory), None

  steps = (t, ticks.sigma, ticks.next_sigma, renoise if fresh else None)
  x, memory = noise, begin(settings, state.memory, state.text)
  plan = chunk_plan(settings, memory, noise.shape[1])
  if state.pending is not None:
    now, steps = (
      jax.tree.map(operator.itemgetter(at), steps) for at in (0, slice(1, None))
    )
    v, memory = deferred.tick(settings, params, x, now[0], context_t, state)
    x = move(x, v, now)
  if len(steps[1]):
    (x, memory), _ = jax.lax.scan(tick, (x, memory), steps)
  x0, pending = x, None
  if settings.schedule.extra is not None:
    if settings.schedule.extra != CLEAN:
      x = flow.add_noise(x0, renoise[-1], ticks.context_sigma)
    if settings.deferred:
      # As the network will read it; a second x0 would be a copy.
      pending = x.astype(settings.dtype)
    else:
      _, memory = velocity(
        settings, params, x, context_t, state.text, memory, plan, state.inputs
      )
  memory = memory.advance(noise.shape[1])
  inputs = conditioning.advance(settings.inputs, state.inputs, x0)
  state = state.replace(
    memory=memory, chunk=state.chunk + 1, pending=pending, inputs=inputs
  )
  return state, x0


def step(
  settings: Settings, params, state: State, ticks: Ticks
) -> tuple[State, jax.Array]:
  """The next chunk, with noise drawn from the stream's key.

  Returns:
    The stream after the chunk and its clean latents `[B, F, H, W, C]`.
  """
  if settings.schedule.flight > 1:
    return staggered.step(settings, params, state, ticks)
  shape = latent_shape(settings, state)
  later = chunk_keys(state)[1]
  noise = start_noise(settings, state, shape)
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
  return jax.jit(
    functools.partial(step, settings),
    donate_argnums=1,
    compiler_options=compiler_options(jax.default_backend()),
  )


def compiler_options(platform: str) -> dict[str, bool] | None:
  """Options of XLA for a chunk on 'cpu' or 'gpu'."""
  # With cuBLASLt biases and GELU cost no pass of their own.
  return {'xla_gpu_enable_triton_gemm': False} if platform == 'gpu' else None


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
  body = functools.partial(step, settings, params)
  for run in settings.schedule.runs(num_chunks, start):
    ticks = Ticks(*map(jnp.asarray, run[1:]))
    deferring = settings.deferred and state.pending is None
    if deferring or (settings.schedule.flight > 1 and state.flight is None):
      # The first chunk has nothing to catch up with: another program.
      state, latents = body(state, ticks_of(run, 0))
      pieces.append(latents[:, None])
      ticks = jax.tree.map(lambda x: x[1:], ticks)
    if len(ticks.t):
      state, latents = jax.lax.scan(body, state, ticks)
      pieces.append(jnp.moveaxis(latents, 0, 1))
  clip = jnp.concatenate(pieces, 1)
  return state, clip.reshape(clip.shape[0], -1, *clip.shape[3:])


def prefill(
  settings: Settings, params, state: State, latents: jax.Array
) -> State:
  """Takes given latents into memory, at the schedule's context level.

  A stream may so begin with a first frame (one latent) or continue the
  user's video (any number). Latents go in chunk by chunk, causally. A model
  that is shown a frame by channel starts from the first one and takes the
  tick of every later chunk, as in training, without what it makes of it.

  Args:
    settings: of the stream; `memory.aligned` must be False unless the number
      of latents is a multiple of the chunk.
    params: the transformer's parameters.
    state: the stream.
    latents: clean latents `[B, F, H, W, C]`.
  """
  chunk = settings.memory.chunk
  if settings.inputs.starts:
    return _follow(settings, params, state, latents)
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


def _follow(settings: Settings, params, state: State, latents) -> State:
  """Forced through given latents: one, and then whole chunks, the last."""
  chunk = settings.memory.chunk
  first = (latents.shape[1] - 1) % chunk
  state = start_from(settings, state, latents[:, first : first + 1])
  run = jitted_step(settings)
  for at in range(first + 1, latents.shape[1], chunk):
    state, _ = run(params, state, chunk_ticks(settings.schedule, 0))
    clean = latents[:, at : at + chunk]
    inputs = conditioning.advance(settings.inputs, state.inputs, clean)
    state = state.replace(inputs=jax.tree.map(jnp.copy, inputs))
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
    memory = begin(settings, state.memory, state.text)
    _, memory = velocity(settings, params, x, level.t, state.text, memory)
    return state.replace(memory=memory.advance(latents.shape[1]))

  return jax.jit(commit, donate_argnums=1)
