"""The clips that a student makes for its objective, and their targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.diffusion import describe, flow, solvers
from jaxvid.diffusion import schedule as schedules
from jaxvid.models import vae
from jaxvid.stream import stream, teacher
from jaxvid.training import rollout, scores
from jaxvid.training.diffusion import forcing_plan
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.rollout import Table
from jaxvid.training.scores import Texts


class Clip(NamedTuple):
  """What the student made and the objective scores.

  Attributes:
    x: latents `[B, F, H, W, C]`.
    mask: frames that count `[B, F]`, or None for all.
    target: what regressions aim at, like `x`; None if nothing does.
    shown: what the student saw of every chunk's past, like `x`, where that is
      not `x` itself.
  """

  x: jax.Array
  mask: jax.Array | None
  target: jax.Array | None
  shown: jax.Array | None = None

  @property
  def past(self) -> jax.Array:
    """What chunks are scored behind, where they are scored one by one."""
    return self.x if self.shown is None else self.shown


def make_clip(
  config: DistillConfig, codec, student, inputs, key, gradient: bool
) -> Clip:
  """The student's clip of the last `gradient_chunks` chunks.

  Args:
    config: settings.
    codec: sizes of the frozen VAE, or None.
    student: its parameters.
    inputs: frozen networks, `Texts`, real latents or None.
    key: randomness of ticks, exits and noise.
    gradient: whether the clip carries one, and regressions get their target.
  """
  frozen, texts, real = inputs
  tick_key, depth_key, noise_key = jax.random.split(key, 3)
  settings = config.student
  table = _table(config, tick_key)
  if config.history != 'self':
    x = _forced(config, student, texts.prompt, table, real, noise_key)
    x, shown = (last_frames(config, v) for v in (x, real))
    return Clip(x, None, None, shown)
  size = config.rollout
  state = stream.init(
    settings, jax.lax.stop_gradient(student), texts.prompt, noise_key
  )
  state, record = rollout.generate(
    settings,
    student,
    state,
    table,
    rollout.depths(depth_key, size),
    real,
    size.truth_after,
  )
  last = record.last(size.gradient_chunks)
  x, target = rollout.join(last.clean), None
  if gradient:
    ready = stream.encode_prompt(settings, student, texts.prompt)
    x = rollout.replay(settings, student, ready, state.memory, last)
    target = _target(config, frozen, texts, noise_key)
  if size.chunks == size.gradient_chunks:
    return Clip(x, None, target)
  before = rollout.join(record.clean)[:, : -config.frames + 1]
  return _anchored(config, codec, frozen, Clip(x, None, target), before)


def _table(config: DistillConfig, key) -> Table:
  """The ticks of a rollout's chunks, drawn anew if digits are random."""
  chunks = config.rollout.chunks
  if not config.digits:
    return rollout.table_of(describe.build(config.schedule), chunks)
  spec = config.schedule
  options = schedules.digits(
    config.digits, spec.shift or 5.0, spec.commit or 'last', table=spec.table
  )
  index = jax.random.randint(key, (chunks,), 0, len(config.digits))
  return rollout.choose_rows(
    rollout.table_of(options, len(config.digits)), index
  )


def _target(config: DistillConfig, frozen, texts: Texts, key):
  """What the same noise becomes in the hands of a better sampler."""
  if config.flow is None or config.target == 'gradient':
    return None
  chunks = config.rollout.chunks
  settings = config.stream(config.target_schedule, config.target_guidance)
  if config.target == 'causal':
    params = frozen['causal']
    negative = texts.negative if settings.guided else None
    state = stream.init(settings, params, texts.prompt, key, negative)
    state = rollout.spread(state)
    clip = stream.rollout(settings, params, state, chunks)[1]
    return clip[:, -config.frames :]
  state = stream.init(config.student, frozen['teacher'], texts.prompt, key)
  shape = stream.latent_shape(config.student, state)

  def draw(i):
    start, _ = stream.chunk_keys(state.replace(chunk=i))
    return jax.random.normal(start, shape)

  noise = rollout.join(jax.vmap(draw)(jnp.arange(chunks)))
  field = scores.guided(config, frozen['teacher'], texts)
  table = teacher.solver_table(settings.schedule)

  def velocity(x, t):
    return field(x, jnp.full(x.shape[:1], t))

  return jax.lax.stop_gradient(solvers.sample(velocity, noise, table))


def _forced(config: DistillConfig, student, text, table, real, key):
  """All chunks in one pass from noised real ones (CausVid)."""
  settings, frames = config.student, real.shape[1]
  memory, chunk = settings.memory, config.chunk
  draw_key, noise_key = jax.random.split(key)
  index = jnp.int32(
    jax.random.uniform(draw_key, (len(table.count),)) * table.count
  )
  pick = jnp.arange(len(table.count)), index
  t, level = (
    jnp.repeat(jnp.asarray(column)[pick], chunk)[:frames]
    for column in (table.t, table.sigma)
  )
  t, level = (jnp.broadcast_to(v, real.shape[:2]) for v in (t, level))
  noise = jax.random.normal(noise_key, real.shape)
  x = flow.add_noise(real, noise, level)
  if config.history == 'teacher':
    inputs = jnp.concatenate([real, x], 1)
    times = jnp.concatenate([jnp.zeros_like(t), t], 1)
  else:
    inputs, times = x, t
  plan = forcing_plan(
    config.dit,
    config.history,
    chunk,
    frames,
    memory.height,
    memory.width,
    config.backend,
  )
  v, _ = settings.network.apply(
    {'params': student}, inputs, times, text, None, plan
  )
  return flow.to_x0(x, v[:, -frames:], level)


def _anchored(config: DistillConfig, codec, frozen, clip: Clip, before) -> Clip:
  """Begins a clip from the middle of a video as a clip begins.

  A first latent stands for one frame, others for four. With a VAE the frame
  that the clip's first latent ends at is encoded alone and takes its place;
  its chunk is not scored either way.
  """
  x, count = clip.x, clip.x.shape[1]
  if codec is not None:
    first = first_latent(codec, frozen['vae'], before)
    x = jnp.concatenate([first, x[:, 1:]], 1)
  mask = jnp.broadcast_to(jnp.arange(count) >= config.chunk, x.shape[:2])
  return clip._replace(x=x, mask=mask)


def first_latent(codec, params, before) -> jax.Array:
  """The frame that latents end at, as a video's first latent.

  Args:
    codec: sizes of the VAE.
    params: its parameters.
    before: latents `[B, F, H, W, C]` up to that frame.

  Returns:
    `[B, 1, H, W, C]`, without gradient.
  """
  before = jax.lax.stop_gradient(before)
  # A few latents settle the decoder; upstream decodes all of them.
  frame = vae.decode(codec, params, before[:, -4:])[0][:, -1:]
  first = vae.encode(codec, params, jnp.clip(frame, -1, 1))[0]
  return jax.lax.stop_gradient(first)


def last_frames(config: DistillConfig, clip):
  """The last frames, as many as the teacher's clip has."""
  return clip[:, -config.frames :]
