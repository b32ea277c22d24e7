"""A re-cache of a memory with a bank: what the next chunk sees for certain.

The sink and the recent chunks are computed anew with the new prompt, one
after the other, each seeing what its place in the video lets it see. Chunks
further back stay as they were: what they show is what they are found by, so
every entry keeps its own prompt's embedding.
"""

import jax
import jax.numpy as jnp

from jaxvid.diffusion import flow
from jaxvid.memory.bank import BankMemory
from jaxvid.models.dit import TextKV
from jaxvid.stream.begin import begin
from jaxvid.stream.draws import chunk_keys
from jaxvid.stream.state import Settings, State, kept_at
from jaxvid.stream.tick import velocity


def recache_bank(
  settings: Settings,
  params,
  state: State,
  sink: jax.Array,
  recent: jax.Array,
  text: TextKV,
  starts: jax.Array | None = None,
) -> State:
  """The stream with another prompt, its near past seen in that light.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: the stream at a chunk boundary.
    sink: clean latents of its first frames `[B, S, H, W, C]`.
    recent: those of its newest, oldest first `[B, R, H, W, C]`, R the window
      without the current chunk; frames before the video mean nothing.
    text: keys and values of the new prompt (and of the negative one).
    starts: chunks that the schedule began with, see `state.kept_at`.
  """
  memory, frame = state.memory, state.memory.frame
  chunk, key = settings.memory.chunk, chunk_keys(state)[1]
  count, behind = recent.shape[1] // chunk, recent.shape[1]
  places = [
    (i * chunk, sink[:, i * chunk : (i + 1) * chunk], (i + 1) * chunk + behind)
    for i in range(sink.shape[1] // chunk)
  ] + [
    (frame - behind + i * chunk, recent[:, i * chunk : (i + 1) * chunk], 0)
    for i in range(count)
  ]
  for i, (start, latents, least) in enumerate(places):
    # No chunk of the stream draws from these keys.
    own = jax.random.fold_in(key, 2**31 - 1 - i)

    def redo(memory: BankMemory, start=start, latents=latents, own=own):
      at = memory, start, latents, text, own, starts
      return _redo(settings, params, state, *at)

    # Sink chunks that are recent as well come with those.
    there = (start >= 0) & (frame >= least)
    memory = jax.lax.cond(there, redo, lambda memory: memory, memory)
  return state.replace(memory=memory.at(frame), text=text)


def _redo(settings, params, state, memory, start, latents, text, key, starts):
  """Writes one chunk again, under another prompt."""
  chunk = latents.shape[1]
  memory = begin(settings, memory.at(start), text).described()
  back = (state.memory.frame - start) // chunk
  index = jnp.maximum(state.chunk - back, 0)
  t, sigma = kept_at(settings.schedule, index, starts)
  noise = jax.random.normal(key, latents.shape)
  x = flow.add_noise(latents, noise, sigma)
  _, memory = velocity(settings, params, x, t, text, memory)
  return memory.advance(chunk)
