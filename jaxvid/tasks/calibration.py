"""Runs a stream tick by tick and looks at every linear layer."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.diffusion.schedule import CLEAN
from jaxvid.errors import UserError
from jaxvid.quantization.observe import Measure, observed
from jaxvid.stream import stream
from jaxvid.stream.begin import begin
from jaxvid.stream.state import Settings
from jaxvid.stream.tick import velocity


def ticks(
  settings: Settings,
  params,
  text: jax.Array,
  negative: jax.Array | None,
  key: jax.Array,
  chunks: int,
  measure: Measure,
) -> Iterator[tuple[float, dict[str, Any]]]:
  """All calls of the network in a stream's first chunks.

  Args:
    settings: of the stream, plain (unrolled, neither fused nor deferred).
    params: the transformer's parameters.
    text: encoded prompts `[B, T, D]`.
    negative: encoded negative prompts, under guidance.
    key: of the noise.
    chunks: how many.
    measure: see `quantization.observe`.

  Yields:
    Time step of the call, and what was measured of every layer; layers on the
    text are part of every call here.

  Raises:
    UserError: a whole clip at once, or a model that takes more than noise.
  """
  if settings.schedule.bidirectional or settings.inputs.starts:
    raise UserError('only streams of text-to-video models can be calibrated')
  state = stream.init(settings, params, text, key, negative)
  words = text if negative is None else jnp.concatenate([text, negative])
  fresh = settings.schedule.update == 'renoise'

  @jax.jit
  def look(params, x, t, memory):
    call = functools.partial(velocity, settings)
    return observed(call, measure)(params, x, t, words, memory)

  for i in range(chunks):
    at = stream.chunk_ticks(settings.schedule, i)
    shape = stream.latent_shape(settings, state)
    start, later = stream.chunk_keys(state)
    x = jax.random.normal(start, shape)
    memory = begin(settings, state.memory, state.text)
    for j, (t, sigma, following) in enumerate(
      zip(at.t, at.sigma, at.next_sigma, strict=True)
    ):
      (v, memory), seen = look(params, x, t, memory)
      yield float(t), seen
      if fresh:
        noise = stream.tick_noise(later, j, shape)
        x = flow.add_noise(flow.to_x0(x, v, sigma), noise, following)
      else:
        x = flow.euler_step(x, v, sigma, following)
    if settings.schedule.extra is not None:
      if settings.schedule.extra != CLEAN:
        noise = stream.tick_noise(later, len(at.t) - 1, shape)
        x = flow.add_noise(x, noise, at.context_sigma)
      (_, memory), seen = look(params, x, at.context_t, memory)
      yield float(at.context_t), seen
    memory = memory.advance(shape[1])
    state = state.replace(memory=memory, chunk=state.chunk + 1)
