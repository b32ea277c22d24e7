"""Streaming long tuning: one video goes on from step to step, clip by clip.

The teacher knows short clips and the memory of a device is finite, so a long
video is learned piece by piece: each step extends the videos of the step
before by a clip, and the objective scores that clip with the prompt that is
on. What was made before is constant context. Memory, latents and prompts
live in the training state, so a run resumes in the middle of its videos; what
a step needs does not depend on how long they are.

Source: LongLive, section 3.2 and algorithm 1; its release
(`model/streaming_training.py`) where marked.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec as P

from jaxvid.diffusion import describe, flow
from jaxvid.memory import LinearMemory, Memory
from jaxvid.models import text as text_lib
from jaxvid.stream import stream, switch
from jaxvid.stream.stream import State
from jaxvid.stream.switch import Past
from jaxvid.training import clips, rollout
from jaxvid.training.clips import Clip
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.rollout import Record, Table
from jaxvid.training.scores import Texts

NEVER = 2**30
_BATCH = ('data', 'fsdp')
# Videos are split over the devices as batches are.
RULES = (
  (r'video/memory/[kv](/\d+)?$', P(_BATCH, None, None, None)),
  # The sums of linear attention: values, then keys.
  (r'video/memory/\w+/(\d+/)?(0|values)$', P(_BATCH, None, None, None)),
  (r'video/memory/\w+/(\d+/)?(1|keys)$', P(_BATCH, None, None)),
  (r'video/(past/\w+|before)$', P(_BATCH, None, None, None, None)),
  (r'video/tail/(noisy|clean)$', P(_BATCH, None, None, None, None)),
  (r'video/(prompt|follow)$', P(_BATCH, None, None)),
)


@struct.dataclass
class Video:
  """The videos of a batch between two clips; they are all equally long.

  Attributes:
    memory: past keys and values, as older weights made them.
    past: latents that a re-cache needs.
    prompt: encoded, `[B, text_len, text_dim]`.
    follow: the prompt after the next switch.
    negative: the teacher's negative prompt `[1, text_len, text_dim]`.
    key: of the noise, as numbers.
    chunk: chunks so far.
    clip: clips so far.
    switch: clip that begins with the next prompt; `NEVER` for none.
    starts: chunks that the schedule began with, the latest ones, newest last;
      as many as a memory can see, and the one before.
    tail: the last `overlap` chunks.
    before: the latents before those, up to 3 `[B, <= 3, H, W, C]`.
  """

  memory: Memory | LinearMemory
  past: Past
  prompt: jax.Array
  follow: jax.Array
  negative: jax.Array
  key: jax.Array
  chunk: jax.Array
  clip: jax.Array
  switch: jax.Array
  starts: jax.Array
  tail: Record
  before: jax.Array


def clip_count(config: DistillConfig) -> int:
  """Clips of a video of `long.latents` latents."""
  assert config.long is not None
  clip, overlap = config.rollout.chunks, config.long.overlap
  chunks = config.long.latents // config.chunk
  return 1 + (chunks - clip) // (clip - overlap)


def empty(config: DistillConfig) -> Video:
  """That of a fresh run: the first step begins a video."""
  assert config.long is not None
  settings, batch = config.student, config.data.batch
  dit, overlap = config.dit, config.long.overlap
  memory = stream.new_memory(settings, batch)
  picture = (*config.size, dit.out_dim)
  held = config.sink + config.window
  text = jnp.zeros((batch, dit.text_len, dit.text_dim))
  chunk = jnp.zeros((overlap, batch, config.chunk, *picture))
  older = min(3, (config.rollout.chunks - overlap) * config.chunk)
  zero = jnp.zeros((), jnp.int32)
  return Video(
    memory=memory,
    past=Past(
      jnp.zeros((batch, config.sink, *picture)),
      jnp.zeros((batch, held, *picture)),
    ),
    prompt=text,
    follow=jnp.copy(text),
    negative=jnp.copy(text[:1]),
    key=jax.random.key_data(jax.random.key(0)),
    chunk=zero,
    clip=zero + clip_count(config),
    switch=zero + NEVER,
    starts=jnp.zeros(held // config.chunk + 1, jnp.int32),
    tail=Record(chunk, jnp.copy(chunk), *jnp.zeros((2, overlap))),
    before=jnp.zeros((batch, older, *picture)),
  )


def restarted(
  config: DistillConfig, frozen, video: Video, batch, negative, key
) -> Video:
  """New videos of this batch's prompts, without frames.

  Args:
    config: settings.
    frozen: networks that are used and never trained.
    video: the finished ones.
    batch: 'ids', 'mask' of the prompts and 'next_ids', 'next_mask'.
    negative: ids and mask `[1, text_len]`.
    key: of the switch and the noise.
  """
  assert config.long is not None
  size = batch['ids'].shape[0]
  ids, mask = (
    jnp.concatenate(
      [batch[name], batch[f'next_{name}'], jnp.asarray(row, batch[name].dtype)]
    )
    for name, row in zip(('ids', 'mask'), negative, strict=True)
  )
  dtype = jnp.dtype(config.dtype)
  texts = text_lib.encode(config.text, frozen['text'], ids, mask, dtype)
  texts = jax.lax.stop_gradient(texts).astype(jnp.float32)
  own, share_key, when_key = jax.random.split(key, 3)
  count = clip_count(config)
  last = min(config.long.every or count, count - 1)
  when = jax.random.randint(when_key, (), 1, max(last, 1) + 1)
  changes = jax.random.uniform(share_key) < config.long.switches
  changes &= count > 1
  return jax.tree.map(jnp.zeros_like, video).replace(
    prompt=texts[:size],
    follow=texts[size : 2 * size],
    negative=texts[2 * size :],
    key=jax.random.key_data(own),
    switch=jnp.where(changes, when, NEVER).astype(jnp.int32),
  )


def extend(
  config: DistillConfig,
  codec,
  student,
  frozen,
  video: Video,
  batch,
  negative,
  key: jax.Array,
  gradient: bool,
) -> tuple[Video, Clip, Texts]:
  """The next clip of the videos, or the first of the next ones.

  Args:
    config: settings.
    codec: sizes of the frozen VAE, or None.
    student: its parameters.
    frozen: networks that are used and never trained.
    video: the videos so far.
    batch: prompts of the next videos, see `restarted`.
    negative: ids and mask of the negative prompt.
    key: randomness of exits, and of new videos.
    gradient: whether the new chunks carry one.

  Returns:
    The videos after it; the clip, of which the frames shown again do not
    count; the prompts that are on.
  """
  assert config.long is not None
  depth_key, start_key = jax.random.split(key)
  video = jax.lax.cond(
    video.clip >= clip_count(config),
    lambda video: restarted(config, frozen, video, batch, negative, start_key),
    lambda video: video,
    video,
  )
  fresh = video.clip == 0
  video, changed = _told(config, video)
  prompt = video.prompt
  state, past = _begun(config, student, video, changed)
  depth = rollout.depths(depth_key, config.rollout)
  start = state.memory
  state, past, first, new = _made(
    config, student, state, past, video, fresh, depth
  )
  both = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, new)
  clean = rollout.join(both.clean)
  x = clean
  if gradient:
    ready = stream.encode_prompt(config.student, student, prompt)
    inputs = config, student, ready, first, new, fresh
    if config.long.kv_gradient:
      x = _followed(*inputs, start, video)
    else:
      x = _replayed(*inputs, state.memory)
  clip = _clip(config, codec, frozen, x, video.before, fresh)
  texts = Texts(prompt, jnp.broadcast_to(video.negative, prompt.shape))
  return _after(config, video, state, past, both, clean), clip, texts


def _told(config: DistillConfig, video: Video) -> tuple[Video, jax.Array]:
  """The videos with the prompt that is on, and whether it is another one."""
  assert config.long is not None
  changed = video.clip == video.switch
  every = config.long.every
  again = video.clip + every if every else NEVER
  prompt, follow, starts = video.prompt, video.follow, video.starts
  if config.long.again:
    later = jnp.roll(starts, -1).at[-1].set(video.chunk)
    starts = jnp.where(changed, later, starts)
  video = video.replace(
    starts=starts,
    prompt=jnp.where(changed, follow, prompt),
    follow=jnp.where(changed, prompt, follow),
    switch=jnp.where(changed, again, video.switch),
  )
  return video, changed


def _begun(config: DistillConfig, student, video: Video, changed: jax.Array):
  """The stream with the prompt that is on, and its latents."""
  assert config.long is not None
  settings = config.student
  student = jax.lax.stop_gradient(student)
  key = jax.random.wrap_key_data(video.key)
  state = stream.init(settings, student, video.prompt, key)
  text = state.text
  state = state.replace(memory=video.memory, chunk=video.chunk)

  def change(state, past):
    match config.long.cache:
      case 'recache':
        parts = settings, student, state, past, text, video.starts
        return switch.recache(*parts), past
      case 'none':
        nothing = jax.tree.map(jnp.zeros_like, past)
        return switch.emptied(state, text), nothing
    return state, past

  return jax.lax.cond(
    changed,
    change,
    lambda state, past: (state, past),
    state,
    video.past,
  )


def _table(
  config: DistillConfig, video: Video, chunk: jax.Array, count: int
) -> Table:
  """Ticks of `count` chunks of the videos from a traced one on."""
  schedule = describe.build(config.schedule)
  rows = len(schedule.rows)
  index = chunk - jnp.max(video.starts) + jnp.arange(count)
  last = index % rows if schedule.cyclic else jnp.minimum(index, rows - 1)
  return rollout.choose_rows(rollout.table_of(schedule, rows), last)


def _made(config: DistillConfig, student, state, past, video, fresh, depth):
  """Rolls out, without gradient.

  Returns:
    The stream, its latents, and records: of the chunks that a video begins
    with, or of the last ones before; of the new ones.
  """
  overlap = video.tail.t.shape[0]
  settings = config.student

  def roll(state: State, past: Past, depth):
    table = _table(config, video, state.chunk, len(depth))
    state, record = rollout.generate(settings, student, state, table, depth)
    clean = rollout.join(record.clean)
    return state, switch.remember(settings, past, state, clean), record

  state, past, first = jax.lax.cond(
    fresh,
    lambda state, past: roll(state, past, depth[:overlap]),
    lambda state, past: (state, past, video.tail),
    state,
    past,
  )
  state, past, new = roll(state, past, depth[overlap:])
  return state, past, first, new


def _replayed(config, student, text, first, new, fresh, memory) -> jax.Array:
  """The clip with the gradient of each new chunk's exit tick."""
  settings = config.student
  replay = functools.partial(rollout.replay, settings, student, text)
  then = memory.at(memory.frame - len(new.t) * config.chunk)
  begun = jax.lax.cond(
    fresh,
    lambda: replay(then, first),
    lambda: rollout.join(first.clean),
  )
  return jnp.concatenate([begun, replay(memory, new)], 1)


def _followed(
  config, student, text, first, new, fresh, memory, video
) -> jax.Array:
  """The clip, whose chunks also learn through the memory of the later ones.

  A second rollout with gradient along the exit ticks of the first one; the
  memory before the clip is constant.
  """
  settings = config.student
  key = jax.random.wrap_key_data(video.key)

  @jax.checkpoint
  def one(params, text, memory, chunk, row, item):
    state = State(memory, text, key, chunk)
    v, memory = stream.velocity(
      settings, params, item.noisy, item.t, text, memory
    )
    x0 = flow.to_x0(item.noisy, v, item.sigma)
    later = stream.chunk_keys(state)[1]
    eps = stream.tick_noise(later, row.count - 1, x0.shape)
    commit = functools.partial(
      rollout.write, settings, params, text, row=row, x0=x0, eps=eps
    )
    if settings.schedule.extra is None:
      last = item.t == row.t[row.count - 1]
      memory = jax.lax.cond(
        last, lambda m: m, lambda m: commit(memory=m), memory
      )
    else:
      memory = commit(memory=memory)
    return memory.advance(x0.shape[1]), x0

  def run(memory, chunk, record):
    count = len(record.t)
    table = _table(config, video, chunk, count)
    inputs = chunk + jnp.arange(count), table, record

    def body(memory, item):
      return one(student, text, memory, *item)

    memory, x0 = jax.lax.scan(body, memory, jax.lax.stop_gradient(inputs))
    return memory, rollout.join(x0)

  memory, begun = jax.lax.cond(
    fresh,
    lambda memory: run(memory, video.chunk, first),
    lambda memory: (memory, rollout.join(first.clean)),
    jax.lax.stop_gradient(memory),
  )
  chunk = video.chunk + jnp.where(fresh, len(first.t), 0)
  return jnp.concatenate([begun, run(memory, chunk, new)[1]], 1)


def _clip(config: DistillConfig, codec, frozen, x, before, fresh) -> Clip:
  """The clip as the teacher sees it, and which of its frames count."""
  assert config.long is not None
  if codec is not None:
    # A clip from the middle of a video begins as a video does.
    until = jnp.concatenate([before, x[:, :1]], 1)
    first = jax.lax.cond(
      fresh,
      lambda: x[:, :1],
      lambda: clips.first_latent(codec, frozen['vae'], until).astype(x.dtype),
    )
    x = jnp.concatenate([first, x[:, 1:]], 1)
  new = jnp.arange(x.shape[1]) >= config.long.overlap * config.chunk
  return Clip(x, jnp.broadcast_to(new | fresh, x.shape[:2]), None)


def _after(config, video, state, past, record, clean) -> Video:
  """The videos with the clip added."""
  overlap = config.long.overlap
  older = clean[:, : -overlap * config.chunk]
  return jax.lax.stop_gradient(
    video.replace(
      memory=state.memory,
      past=past,
      chunk=state.chunk,
      clip=video.clip + 1,
      tail=record.last(overlap),
      before=older[:, -video.before.shape[1] :],
    )
  )
