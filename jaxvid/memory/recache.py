"""Recomputing memory for a new prompt, as the published pipelines do it."""

import jax.numpy as jnp

from jaxvid.memory.memory import Memory
from jaxvid.memory.plan import CachedPlan
from jaxvid.memory.slots import slot_of


def upstream_recache_plan(
  memory: Memory,
  frames: int,
  keep_sink: bool,
  backend: str = 'xla',
  theta: float = 10_000.0,
) -> CachedPlan:
  """Plan of LongLive's one-pass re-cache over the last `frames` latents.

  All frames go through the network at once, at t = 0 with the new prompt,
  attending each other in both directions (lineage of LongLive v1, section
  2.6; not the paper's block-causal rebuild).

  Args:
    memory: memory whose `frame` is the next frame to generate.
    frames: min(capacity, frames generated so far), a static number.
    keep_sink: True leaves sink K/V as they are (`global_sink: true`); False
      lets the oldest of the `frames` latents become the sink. While the
      memory is not full the pass starts at frame 0 and both forms agree.
    backend: attention backend.
    theta: of the rotary frequencies, `DiTConfig.rope_theta`.

  Returns:
    The plan; run it on `memory`, whose `frame` stays where it was.
  """
  config = memory.config
  index = memory.frame - frames + jnp.arange(frames)
  slots = slot_of(index, config.sink, config.capacity)
  ring = config.capacity - config.sink
  if frames == config.capacity:
    wrapped = jnp.arange(frames) < frames - ring
    moved = config.capacity if keep_sink else jnp.arange(frames)
    slots = jnp.where(wrapped & (index[0] > 0), moved, slots)
  return memory.plan_at(index, slots, memory.frame, False, backend, theta)
