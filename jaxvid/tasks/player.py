"""From a request to frames: loads the models and starts the stream."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data import video
from jaxvid.diffusion import solvers
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, teacher
from jaxvid.stream.frames import Decoder
from jaxvid.stream.stream import Settings
from jaxvid.tasks import (
  budget,
  encoding,
  first_frame,
  resident,
  startup,
  steering,
  trained,
)
from jaxvid.tasks.bundle import Bundle, open_bundle
from jaxvid.tasks.codecs import (
  codec_config,
  encode_frames,
  find_device,
  make_decoder,
)
from jaxvid.tasks.eight_bits import quantized
from jaxvid.tasks.progress import progress, say

if TYPE_CHECKING:
  from jaxvid.tasks.generate import Config, Request

PIXELS = 8  # per latent position, along height and width


class Playback(NamedTuple):
  """A video about to be made.

  Attributes:
    before: uint8 `[n, H, W, 3]`, frames of the video that is continued.
    frames: uint8 `[1, n, H, W, 3]`, new frames as they come.
    began: when work on them began (`time.perf_counter`), if it has.
    total: new frames that there will be, if not as many as were asked for.
  """

  before: Iterator[np.ndarray]
  frames: Iterator[np.ndarray]
  began: float | None = None
  total: int = 0


@dataclasses.dataclass(frozen=True)
class Model:
  """Everything a stream needs, on the device.

  Attributes:
    settings: of the stream.
    params: the transformer's parameters.
    decoder: of its latents.
    text: encoded prompt `[1, T, D]`.
    negative: encoded negative prompt, None without guidance.
    key: of all noise.
    exports: folder of exported streams; None: there are none.
  """

  settings: Settings
  params: Any
  decoder: Decoder
  text: jax.Array
  negative: jax.Array | None
  key: jax.Array
  exports: pathlib.Path | None = None


def prepare(config: 'Config', request: 'Request') -> Playback:
  """Loads everything, encodes the prompt and compiles; then frames may flow."""
  resident.settle()
  model, encode, latents, piece = load(config, request)
  if request.schedule.bidirectional:
    return clip(model, piece)
  if config.restart:
    from jaxvid.tasks import restarted

    return restarted.play(config, request, model, encode, latents)
  if request.steered:
    from jaxvid.tasks import live

    return live.steered(config, request, model, encode, latents)
  playback = start_stream(model, request.num_chunks, latents)
  if config.video:
    playback = playback._replace(before=given_video(config, model))
  return playback


def given_video(config: 'Config', model: Model) -> Iterator[np.ndarray]:
  """Frames of the video that is continued, `[1, H, W, 3]` each."""
  memory, patch = model.settings.memory, model.settings.config.patch_size
  height, width = PIXELS * memory.height, PIXELS * memory.width
  source = video.iter_video(config.video, height * patch[1], width * patch[2])
  return (frame[None] for frame in source)


class Loaded(NamedTuple):
  """A model, and what a stream of it begins with.

  Attributes:
    model: on the device.
    encode: prompts -> encoded `[n, T, D]`.
    latents: given ones `[1, k, h, w, C]`, or None.
    piece: latent frames decoded at a time.
  """

  model: Model
  encode: Callable[[Sequence[str]], jax.Array]
  latents: jax.Array | None
  piece: int


def load(config: 'Config', request: 'Request') -> Loaded:
  """Reads all parts of a model and encodes the prompt."""
  bundle = open_model(config)
  for kind in ('dit', 'text', config.decoder):
    bundle.need(kind)
  if config.decoder_device is not None:
    find_device(config.decoder_device)
  size = picture_size(config, bundle)
  given = given_frames(config, size)
  settings = stream_settings(config, request, bundle, size, given)
  trained.warn(bundle, settings, request.num_chunks)
  measures = plan_memory(config, bundle, settings, size)
  for note in measures.notes:
    say(f'memory: {note}')
  # A stream that may be told another prompt keeps the encoder at hand.
  keep = request.steered and not config.memory_gb
  encode = encoding.prompt_encoder(
    bundle, settings.dtype, measures.text_on_host, keep
  )
  embeds = encode([request.prompt, config.negative_prompt])
  latents = encode_frames(bundle, given, settings.dtype)
  starts = settings.inputs.starts and not config.state.resume
  if latents is None and starts:
    latents = first_frame.made(config, size, settings.config.out_dim)
  params = bundle.place('dit', settings.dtype)
  settings, params = startup.quickened(config, settings, params)
  model = Model(
    settings=settings,
    params=params,
    decoder=make_decoder(
      config.decoder, bundle, settings, measures.decode, config.decoder_device
    ),
    text=embeds[:1],
    negative=embeds[1:] if settings.guided else None,
    key=jax.random.key(config.seed),
    exports=startup.folder(config.weights) if config.exported else None,
  )
  return Loaded(model, encode, latents, measures.decode)


def open_model(config: 'Config') -> Bundle:
  """The model that a config names."""
  bundle = open_bundle(
    config.weights,
    config.checkpoint,
    config.lora,
    use_ema=config.use_ema,
    lora_alpha=config.lora_alpha,
  )
  return quantized(bundle, config.quantization)


def compute_dtype(config: 'Config') -> str:
  """As asked for, or what suits the device."""
  on_gpu = jax.default_backend() == 'gpu'
  return config.dtype or ('bfloat16' if on_gpu else 'float32')


def picture_size(config: 'Config', bundle: Bundle) -> tuple[int, int]:
  """(height, width) of the frames; UserError if no model can make them."""
  height, width = (
    config.height or bundle.size[0],
    config.width or bundle.size[1],
  )
  step = PIXELS * bundle.configure('dit').patch_size[1]
  for name, value in (('height', height), ('width', width)):
    if value < step or value % step:
      near = max(step, round(value / step) * step)
      raise UserError(
        f'{name} must be a multiple of {step}, not {value} (nearest: {near})'
      )
  return height, width


def given_frames(config: 'Config', size: tuple[int, int]) -> np.ndarray | None:
  """Frames that the stream starts from, uint8 `[4 k - 3, H, W, 3]`.

  Of a video, as many of the last as the memory holds, in whole chunks if
  possible.
  """
  if config.first_frame:
    return first_frame.read_picture(config.first_frame, size)[None]
  if not config.video:
    return None
  most = config.sink + config.window
  frames = video.read_video(config.video, *size, last=4 * most - 3)
  latents = (len(frames) + 3) // 4
  if latents > config.chunk:
    latents -= latents % config.chunk
  return frames[-(4 * latents - 3) :]


def stream_settings(
  config: 'Config',
  request: 'Request',
  bundle: Bundle,
  size: tuple[int, int],
  given: np.ndarray | None,
) -> Settings:
  """Settings of the stream; UserError if the parts do not fit together."""
  dit, text = bundle.configure('dit'), bundle.configure('text')
  codec = bundle.configure(config.decoder)
  if dit.text_dim != text.dim or dit.out_dim != codec.z_dim:
    raise UserError(
      f'the parts of {bundle.where} do not fit: the transformer wants text of '
      f'{dit.text_dim} and latents of {dit.out_dim} channels, the text '
      f'encoder gives {text.dim}, the {config.decoder} takes {codec.z_dim}'
    )
  inputs = first_frame.model_inputs(config, bundle)
  whole = request.schedule.bidirectional
  latents = 0 if given is None else (len(given) + 3) // 4
  step = PIXELS * dit.patch_size[1]
  memory = MemoryConfig(
    height=size[0] // step,
    width=size[1] // step,
    sink=0 if whole else config.sink,
    window=request.chunk if whole else config.window,
    chunk=request.chunk,
    positions=config.positions,
    aligned=_aligned(config, request, latents, inputs.starts),
    bank=None if whole else config.bank,
    key_dtype='' if whole else config.key_dtype,
  )
  return Settings(
    dit,
    memory,
    request.schedule,
    config.guidance,
    dtype=compute_dtype(config),
    noise=config.noise,
    inputs=inputs,
  )


def _aligned(
  config: 'Config', request: 'Request', latents: int, starts: bool
) -> bool:
  """Whether chunks begin at multiples of their length."""
  if config.state.resume:
    return steering.chunks_aligned(config)
  return starts or latents % request.chunk == 0


def plan_memory(
  config: 'Config', bundle: Bundle, settings: Settings, size: tuple[int, int]
) -> budget.Measures:
  """What to do to keep `memory_gb`."""
  memory, tick = budget.stream_bytes(settings)
  dtype = settings.dtype
  weights = {
    kind: budget.param_bytes(bundle.shapes(kind, dtype))
    for kind in ('text', 'dit', config.decoder)
  }
  codec = codec_config(bundle, config.decoder, dtype)
  needs = budget.Needs(
    text=weights['text'],
    dit=weights['dit'],
    decoder=weights[config.decoder],
    memory=memory,
    tick=tick,
    decode=budget.decode_bytes(codec, *size),
    chunk=min(settings.memory.chunk, config.chunk),
  )
  host = jax.default_backend() == 'cpu'
  return budget.plan(needs, config.memory_gb, host)


def start_stream(
  model: Model, num_chunks: int, given: jax.Array | None
) -> Playback:
  """Fills the memory with what is given and compiles every kind of chunk."""
  state, before, decoder_state = begin_stream(model, given)
  step = compile_stream(model, state, num_chunks)
  frames = frames_lib.frames(
    model.settings,
    model.params,
    state,
    model.decoder,
    num_chunks,
    decoder_state,
    step,
  )
  return Playback(before, frames)


def begin_stream(
  model: Model, given: jax.Array | None
) -> tuple[stream.State, Iterator[np.ndarray], Any]:
  """The stream with what is given in memory, that decoded, and the decoder."""
  settings = model.settings
  init = _jitted_init(settings)
  state = init(model.params, model.text, model.key, model.negative)
  if given is None:
    return state, iter(()), None
  shown, decoder_state = frames_lib.decode(
    model.decoder, given, settings.memory.chunk
  )
  state = stream.prefill(settings, model.params, state, given)
  return state, iter(shown), decoder_state


@functools.lru_cache(maxsize=16)
def _jitted_init(settings: Settings):
  return jax.jit(functools.partial(stream.init, settings))


def compile_stream(
  model: Model, state: stream.State, num_chunks: int
) -> startup.Step:
  """Compiles the chunk function once per tick count, and the decoder.

  Returns:
    `step(params, state, ticks)`.
  """
  began = time.perf_counter()
  settings = model.settings
  step = stream.jitted_step(settings)
  schedule = settings.schedule
  kinds = {len(row): i for i, row in enumerate(schedule.rows[:num_chunks])}
  every = [stream.chunk_ticks(schedule, i) for i in kinds.values()]
  if model.exports is not None:
    step = startup.ahead(settings, model.params, state, every, model.exports)
  else:
    for ticks in every:
      step.lower(model.params, state, ticks).compile()
  latents = jnp.zeros(stream.latent_shape(settings, state))
  model.decoder.compile(latents)
  say(f'compiled in {time.perf_counter() - began:.1f} s')
  return step


def clip(model: Model, piece: int) -> Playback:
  """A whole clip at once: all ticks here, then its frames."""
  settings, schedule = model.settings, model.settings.schedule
  text = stream.encode_prompt(
    settings, model.params, model.text, model.negative
  )
  table = teacher.solver_table(schedule)

  @functools.partial(jax.jit, donate_argnums=2)
  def advance(params, text, state, i):
    t = jnp.asarray(table.t)[i]
    v, _ = stream.velocity(settings, params, state.x, t, text, None)
    return solvers.step(state, v, table, i)

  memory, dit = settings.memory, settings.config
  _, rows, columns = dit.patch_size
  size = (memory.height * rows, memory.width * columns)
  noise = jax.random.normal(model.key, (1, memory.chunk, *size, dit.out_dim))
  began = time.perf_counter()
  state = solvers.init(noise)
  with progress(len(table.t), 'ticks') as update:
    for i in range(len(table.t)):
      state = advance(model.params, text, state, i)
      state.x.block_until_ready()
      update(i + 1, '')
  frames = (frames_lib.decode(model.decoder, state.x, piece)[0] for _ in '1')
  return Playback(iter(()), frames, began)
