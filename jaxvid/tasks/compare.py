"""Times several ways to make one clip, side by side in one run.

Every system makes the same clip in turn, again and again, so that what else
the machine does hits all alike. Times are of whole clips, warm, from encoded
prompt to the last latent (denoise-only) and to the last frame on the host.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation import statistics
from jaxvid.evaluation.statistics import Interval
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, teacher
from jaxvid.stream.stream import Settings
from jaxvid.tasks import benchmark, generate, player, random_bundle, startup
from jaxvid.tasks.bundle import Bundle
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class System:
  """A way to make clips.

  Attributes:
    name: of the row.
    stream: the model and how it is sampled.
  """

  name: str
  stream: generate.Config


@dataclasses.dataclass(frozen=True)
class Ratio:
  """Two systems whose times are compared.

  Attributes:
    slow: name of a system.
    fast: name of another.
    published: the paper's own figures.
    target: least ratio wanted of the ticks alone; 0 = none.
  """

  slow: str
  fast: str
  published: str = ''
  target: float = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    systems: what is timed.
    ratios: what is compared.
    random: random weights of this size (`random_bundle.SIZES`) instead of the
      systems' own; how fast a network is does not depend on what it learned.
    seconds: of video.
    height: of the frames; 0 for the model's own.
    width: of the frames; 0 for the model's own.
    dtype: of the computation; empty: bfloat16 on a GPU, float32 elsewhere.
    repeats: clips per system that are timed, after one that is not.
    output: JSON file; empty prints only.
  """

  systems: tuple[System, ...]
  ratios: tuple[Ratio, ...] = ()
  random: str = ''
  seconds: float = 5.0
  height: int = 0
  width: int = 0
  dtype: str = ''
  repeats: int = 5
  output: str = ''

  def __post_init__(self):
    names = [system.name for system in self.systems]
    if not names or len(set(names)) < len(names):
      raise UserError(f'systems need different names, not {", ".join(names)!r}')
    for ratio in self.ratios:
      for name in (ratio.slow, ratio.fast):
        if name not in names:
          raise UserError(f'no system {name!r}; there are {", ".join(names)}')
    if self.repeats < 1:
      raise UserError(f'repeats must be at least 1, not {self.repeats}')


class Clip(NamedTuple):
  """One clip, timed.

  Attributes:
    denoise: seconds until its latents are there.
    host: seconds until its frames are on the host.
    first: seconds until the first of them are.
  """

  denoise: float
  host: float
  first: float


class Entrant(NamedTuple):
  """A system that is ready.

  Attributes:
    name: of the system.
    facts: what it is.
    denoise: makes the latents of a clip; seconds that took.
    frames: makes the frames; seconds until all and until the first are there.
  """

  name: str
  facts: dict[str, Any]
  denoise: Callable[[], float]
  frames: Callable[[], tuple[float, float]]


def run(config: Config) -> None:
  """Times all systems, prints a table and the ratios; writes JSON if asked."""
  if config.output:
    files.check_writable(config.output)
  entrants = enter(config)
  for entrant in entrants:
    say(f'warming up {entrant.name}')
    timed(entrant)
  clips = {entrant.name: [] for entrant in entrants}
  for i in range(config.repeats):
    say(f'round {i + 1}/{config.repeats}')
    for entrant in entrants:
      clips[entrant.name].append(timed(entrant))
  rows = [row(entrant, clips[entrant.name]) for entrant in entrants]
  ratios = [compare(ratio, clips) for ratio in config.ratios]
  show(rows, ratios)
  if config.output:
    report = {
      'settings': dataclasses.asdict(config),
      'machine': benchmark.machine(),
      'systems': rows,
      'ratios': ratios,
    }
    files.write_json(config.output, report)
    say(f'report: {config.output}')


def enter(config: Config) -> list[Entrant]:
  """Loads every system; those of the same weights share them."""
  bundles: dict[str, Bundle] = {}
  params: dict[tuple[str, str], Any] = {}
  entrants = []
  for system in config.systems:
    asked = dataclasses.replace(
      system.stream,
      seconds=config.seconds,
      height=config.height,
      width=config.width,
      dtype=config.dtype,
      prompt='any',
      output=system.stream.output or 'outputs/comparison.mp4',
    )
    name = config.random or asked.weights
    if name not in bundles:
      bundles[name] = (
        random_bundle.make(config.random)
        if config.random
        else player.open_model(asked)
      )
    entrants.append(_entrant(system.name, asked, bundles[name], params))
  return entrants


def _entrant(
  name: str, config: generate.Config, bundle: Bundle, params: dict
) -> Entrant:
  """One system; its prompt is noise, which takes as long as words."""
  request = generate.check(config)
  size = player.picture_size(config, bundle)
  settings = player.stream_settings(config, request, bundle, size, None)
  key = (bundle.where, settings.dtype)
  if key not in params:
    params[key] = bundle.place('dit', settings.dtype)
  settings, weights = startup.quickened(config, settings, params[key])
  decoder = player.make_decoder(config.decoder, bundle, settings, config.chunk)
  dit = settings.config
  shape = (1, dit.text_len, dit.text_dim)
  keys = jax.random.split(jax.random.key(config.seed), 3)
  text, negative = (jax.random.normal(key, shape) for key in keys[:2])
  negative = negative if settings.guided else None
  chunks = range(request.num_chunks)
  passes = 2 if settings.guided else 1
  facts = {
    'schedule': request.schedule.name,
    'memory': _memory(settings),
    'frames': request.num_frames,
    'ticks': sum(len(request.schedule.row(i)) for i in chunks),
    'calls': passes * sum(request.schedule.calls(i) for i in chunks),
    'dtype': settings.dtype,
  }
  make = _whole if request.schedule.bidirectional else _streamed
  prompt = text, negative, keys[2]
  return Entrant(
    name, facts, *make(settings, weights, decoder, request, prompt)
  )


def _memory(settings: Settings) -> str:
  if settings.schedule.bidirectional:
    return 'none'
  return f'S{settings.memory.sink}W{settings.memory.window}'


def _streamed(settings, params, decoder, request, prompt):
  """How a stream makes its latents, and its frames."""
  text, negative, key = prompt
  init = jax.jit(stream.init, static_argnums=0)
  step = stream.jitted_step(settings)
  table = [
    stream.chunk_ticks(request.schedule, i) for i in range(request.num_chunks)
  ]

  def begin():
    state = init(settings, params, text, key, negative)
    return jax.block_until_ready(state)

  def denoise():
    state = begin()
    began = time.perf_counter()
    for ticks in table:
      state, latents = step(params, state, ticks)
    latents.block_until_ready()
    return time.perf_counter() - began

  def frames():
    state, first = begin(), 0.0
    began = time.perf_counter()
    for _ in frames_lib.frames(
      settings, params, state, decoder, request.num_chunks
    ):
      first = first or time.perf_counter() - began
    return time.perf_counter() - began, first

  return denoise, frames


def _whole(settings, params, decoder, request, prompt):
  """How the teacher makes a clip at once, and its frames."""
  text, negative, key = prompt
  memory, dit = settings.memory, settings.config
  _, rows, columns = dit.patch_size
  size = (memory.height * rows, memory.width * columns)
  noise = jax.random.normal(key, (1, memory.chunk, *size, dit.out_dim))
  ready = stream.encode_prompt(settings, params, text, negative)
  sample = teacher.jitted_sample(settings)
  jax.block_until_ready((noise, ready))
  del request

  def denoise():
    began = time.perf_counter()
    sample(params, ready, noise).block_until_ready()
    return time.perf_counter() - began

  def frames():
    began = time.perf_counter()
    frames_lib.decode(decoder, sample(params, ready, noise))
    whole = time.perf_counter() - began
    return whole, whole

  return denoise, frames


def timed(entrant: Entrant) -> Clip:
  """One clip, ticks alone and with its frames."""
  return Clip(entrant.denoise(), *entrant.frames())


def row(entrant: Entrant, clips: Sequence[Clip]) -> dict[str, Any]:
  """Medians of a system, in seconds and frames per second."""
  clip = Clip(*(float(np.median(times)) for times in zip(*clips, strict=True)))
  count = entrant.facts['frames']
  return {
    'name': entrant.name,
    **entrant.facts,
    'denoise_only_s': round(clip.denoise, 4),
    'on_host_s': round(clip.host, 4),
    'first_frame_s': round(clip.first, 4),
    'denoise_only_fps': round(count / clip.denoise, 2),
    'on_host_fps': round(count / clip.host, 2),
  }


def compare(ratio: Ratio, clips: dict[str, list[Clip]]) -> dict[str, Any]:
  """How many times faster, by rounds: geometric mean with its interval."""
  pairs = list(zip(clips[ratio.slow], clips[ratio.fast], strict=True))
  result: dict[str, Any] = {
    name: getattr(ratio, name) for name in ('slow', 'fast', 'published')
  }
  for name in Clip._fields:
    logs = [math.log(getattr(a, name) / getattr(b, name)) for a, b in pairs]
    value, low, high = map(math.exp, statistics.mean(logs)[:3])
    result[name] = Interval(value, low, high, len(logs))._asdict()
  if ratio.target:
    result['target'] = ratio.target
    result['reached'] = result['denoise']['value'] >= ratio.target
  return result


def show(rows: Sequence[dict], ratios: Sequence[dict]) -> None:
  """Systems and ratios on standard output."""
  for each in rows:
    print(
      f'{each["name"]}: {each["schedule"]}, {each["memory"]}, {each["calls"]} '
      f'calls; ticks alone {each["denoise_only_s"]:.3f} s '
      f'({each["denoise_only_fps"]} frames/s), frames on the host '
      f'{each["on_host_s"]:.3f} s ({each["on_host_fps"]} frames/s), first '
      f'after {each["first_frame_s"]:.3f} s'
    )
  for each in ratios:
    parts = [
      f'{words} {Interval(**each[name])}'
      for name, words in (
        ('denoise', 'ticks alone'),
        ('host', 'on the host'),
        ('first', 'first frame'),
      )
    ]
    text = f'{each["slow"]} / {each["fast"]}: {", ".join(parts)}'
    if 'target' in each:
      met = 'reached' if each['reached'] else 'missed'
      text += f'; target {each["target"]:g} {met}'
    if each['published']:
      text += f'; paper: {each["published"]}'
    print(text)
