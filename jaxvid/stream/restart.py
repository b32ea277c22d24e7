"""Chunks that begin anew: each with a frame of its own, known already.

BlockVid's chunks are clips of 1 + T frames whose first frame guides the rest
(section 3.1): the frame that the chunk before ended on. In latents that frame
stands alone, as the first of every video does, and stays clean while the
others are denoised. A stream that goes on without such frames is smoother and
the default; this is the form as printed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.diffusion import flow
from jaxvid.diffusion.schedule import CLEAN
from jaxvid.errors import UserError
from jaxvid.models.dit import TextKV
from jaxvid.stream import stream
from jaxvid.stream.begin import begin
from jaxvid.stream.frames import Decoder
from jaxvid.stream.state import Settings, State, Ticks, chunk_ticks

# uint8 [B, H, W, 3] -> its latent [B, 1, h, w, C].
Encode = Callable[[np.ndarray], jax.Array]


def step(
  settings: Settings, params, state: State, ticks: Ticks, given: jax.Array
) -> tuple[State, jax.Array]:
  """The next chunk, whose first latents are known.

  Args:
    settings: of the stream; one chunk in flight.
    params: the transformer's parameters.
    state: the stream.
    ticks: of the chunk.
    given: clean latents `[B, G, H, W, C]`, G below the chunk.

  Returns:
    The stream after the chunk and its clean latents `[B, F, H, W, C]`, the
    given ones in front.
  """
  shape, schedule = stream.latent_shape(settings, state), settings.schedule
  later, known = stream.chunk_keys(state)[1], given.shape[1]
  free = jnp.arange(shape[1]) >= known

  def pinned(x):
    return jnp.concatenate([given, x[:, known:]], 1)

  def tick(carry, step):
    x, memory = carry
    i, t, sigma, following = step
    v, memory = stream.velocity(
      settings, params, x, jnp.where(free, t, 0), state.text, memory
    )
    if schedule.update == 'renoise':
      eps = stream.tick_noise(later, i, shape)
      x = flow.add_noise(flow.to_x0(x, v, sigma), eps, following)
    else:
      x = flow.euler_step(x, v, sigma, following)
    return (pinned(x), memory), None

  count = len(ticks.t)
  steps = (jnp.arange(count), ticks.t, ticks.sigma, ticks.next_sigma)
  x = pinned(stream.start_noise(settings, state, shape))
  memory = begin(settings, state.memory, state.text)
  (x0, memory), _ = jax.lax.scan(tick, (x, memory), steps)
  if schedule.extra is not None:
    late = x0
    if schedule.extra != CLEAN:
      eps = stream.tick_noise(later, count - 1, shape)
      late = flow.add_noise(x0, eps, ticks.context_sigma)
    _, memory = stream.velocity(
      settings, params, late, ticks.context_t, state.text, memory
    )
  memory = memory.advance(shape[1])
  return state.replace(memory=memory, chunk=state.chunk + 1), x0


@functools.lru_cache(maxsize=16)
def jitted_step(settings: Settings):
  """`step` compiled once per tick count; the state is donated."""
  if settings.schedule.flight > 1 or settings.deferred:
    raise UserError(
      'restarted chunks begin where the one before ended: not with several '
      'chunks in flight, nor with deferred ticks'
    )
  return jax.jit(functools.partial(step, settings), donate_argnums=1)


def frames(
  settings: Settings,
  params,
  state: State,
  decoder: Decoder,
  encode: Encode,
  num_chunks: int,
  given: jax.Array | None = None,
  texts: Mapping[int, TextKV] | None = None,
) -> Iterator[np.ndarray]:
  """Streams a video chunk by chunk, every one decoded by itself.

  Args:
    settings: of the stream; chunks of 1 + T / 4 latents.
    params: the transformer's parameters.
    state: from `stream.init`; consumed.
    decoder: of the latents.
    encode: a frame to its latent.
    num_chunks: when to stop.
    given: latent of a first frame `[B, 1, h, w, C]`; None = the first chunk
      begins with noise alone.
    texts: chunk -> the prompt that begins there.

  Yields:
    uint8 `[B, n, H, W, 3]`: T frames, and one more where the first chunk is
    given none.
  """
  for i in range(num_chunks):
    if texts and i in texts:
      state = state.replace(text=texts[i])
    ticks = chunk_ticks(settings.schedule, i)
    if given is None:
      state, latents = stream.jitted_step(settings)(params, state, ticks)
    else:
      run = jitted_step(settings)
      state, latents = run(params, state, ticks, given)
    video, _ = decoder(latents, decoder.init_state(latents), True)
    skip = decoder.padding + (given is not None)
    shown = np.asarray(video)[:, skip:]
    given = encode(shown[:, -1])
    yield shown
