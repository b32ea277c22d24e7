"""Changing the prompt of a running stream."""

import functools

import jax
import jax.numpy as jnp

from jaxvid.memory import upstream_recache_plan
from jaxvid.models.dit import TextKV
from jaxvid.stream.stream import Settings, State


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
    settings: of the stream; without guidance, unrolled.
    params: the transformer's parameters.
    state: the stream at a chunk boundary.
    text: keys and values of the new prompt.
    latents: the last min(capacity, frames so far) clean latents
      `[B, F, H, W, C]`.
    keep_sink: keep the sink's keys and values of the old prompt
      (`global_sink: true`), or let the oldest given latents become the sink.
  """
  plan = upstream_recache_plan(
    state.memory,
    latents.shape[1],
    keep_sink,
    theta=settings.config.rope_theta,
  )
  t = jnp.zeros(latents.shape[:1])
  _, memory = settings.network.apply(
    {'params': params}, latents, t, text, state.memory, plan
  )
  return state.replace(memory=memory, text=text)


@functools.lru_cache(maxsize=16)
def jitted_upstream_recache(settings: Settings, keep_sink: bool):
  """`upstream_recache(params, state, text, latents)`, compiled."""

  def run(params, state, text, latents):
    return upstream_recache(settings, params, state, text, latents, keep_sink)

  return jax.jit(run, donate_argnums=1)
