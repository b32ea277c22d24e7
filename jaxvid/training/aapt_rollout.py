"""Student forcing: the generator's own video, and its gradient.

`generate` streams, frame after frame, recycling what it made. `replay` then
evaluates all of these ticks together against the memory that the first of
them found (`memory.segment`): the same numbers, with gradient through the
keys and values of the segment. Recycled frames are inputs and carry none.
A segment that follows another begins with a memory that carries no gradient
either, so videos of any length train in the memory of one segment.
Source: AAPT supplement D and F; its main paper.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxvid.diffusion import flow
from jaxvid.memory.segment import segment_plan
from jaxvid.models import conditioning
from jaxvid.models.dit import TextKV
from jaxvid.parallel.mesh import split_batch
from jaxvid.stream import stream
from jaxvid.stream.stream import Settings, State


def begin(
  settings: Settings, params, text: jax.Array, first: jax.Array, key
) -> State:
  """A stream that starts from latent frames `first` `[B, 1, H, W, C]`."""
  params = jax.lax.stop_gradient(params)
  state = spread(stream.init(settings, params, text, key))
  return stream.start_from(settings, state, first)


def spread(state: State) -> State:
  """The memory, which begins as zeros, where its batch and its heads are.

  Heads of one sample lie on the devices of `context`, so that nothing of the
  past moves. Outside of a mesh nothing happens.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if not {'data', 'fsdp', 'context'} <= set(mesh.axis_names):
    return state
  memory = state.memory
  *_, batch, _, heads, _ = (memory.k if memory.stacked else memory.k[0]).shape
  groups = mesh.shape['data'] * mesh.shape['fsdp']
  spec = PartitionSpec(
    *(None,) * memory.stacked,
    None if batch % groups else ('data', 'fsdp'),
    None,
    None if heads % mesh.shape['context'] else 'context',
  )
  k, v = jax.tree.map(
    lambda leaf: jax.lax.with_sharding_constraint(leaf, spec),
    (memory.k, memory.v),
  )
  return state.replace(memory=memory.replace(k=k, v=v))


def generate(
  settings: Settings, params, state: State, frames: int
) -> tuple[State, jax.Array]:
  """Rolls out without gradient: the stream after it, and `[B, F, H, W, C]`."""
  params, state = jax.lax.stop_gradient((params, state))
  return stream.rollout(settings, params, state, chunks(settings, frames))


def chunks(settings: Settings, frames: int) -> int:
  """How many chunks `frames` latent frames are."""
  count, rest = divmod(frames, settings.memory.chunk)
  if rest:
    raise ValueError(f'{frames} frames are no whole chunks')
  return count


def noise_of(settings: Settings, state: State, frames: int) -> jax.Array:
  """The noise that the next `frames` latent frames begin from."""
  shape = stream.latent_shape(settings, state)

  def draw(i):
    return stream.start_noise(settings, state.replace(chunk=i), shape)

  index = state.chunk + jnp.arange(chunks(settings, frames))
  noise = jnp.moveaxis(jax.vmap(draw)(index), 0, 1)
  return split_batch(noise.reshape(noise.shape[0], frames, *noise.shape[3:]))


def replay(
  settings: Settings, params, text: TextKV, state: State, clip: jax.Array
) -> jax.Array:
  """All ticks of a segment once more, in one pass, with gradient.

  Args:
    settings: of the stream.
    params: the generator's parameters; the gradient goes here.
    text: the prompts' keys and values, from the same parameters.
    state: before the segment.
    clip: what `generate` made of it `[B, F, H, W, C]`.

  Returns:
    Equal to `clip`.
  """
  state, clip = jax.lax.stop_gradient((state, clip))
  config, chunk = settings.config, settings.memory.chunk
  inputs = conditioning.shifted(settings.inputs, state.inputs, clip, chunk)
  plan = segment_plan(
    state.memory,
    clip.shape[1],
    settings.backend,
    config.rope_theta,
    config.rope_grid,
  )
  noise = noise_of(settings, state, clip.shape[1])
  level = settings.schedule.row(0)[0]
  v, _ = stream.velocity(
    settings, params, noise, level.t, text, state.memory, plan, inputs
  )
  return flow.to_x0(noise, v, jnp.float32(level.sigma))


def through_all(
  settings: Settings, params, text: TextKV, state: State, frames: int
) -> jax.Array:
  """The rollout itself with gradient, through recycled frames as well.

  Every step is remembered by its input alone, memory included.
  """
  state = jax.lax.stop_gradient(state).replace(text=text)
  ticks = stream.chunk_ticks(settings.schedule, 0)

  @jax.checkpoint
  def step(params, state):
    return stream.step(settings, params, state, ticks)

  def body(state, _):
    return step(params, state)

  count = chunks(settings, frames)
  _, clip = jax.lax.scan(body, state, None, length=count)
  clip = jnp.moveaxis(clip, 0, 1)
  return clip.reshape(clip.shape[0], frames, *clip.shape[3:])
