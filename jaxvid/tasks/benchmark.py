"""Times a stream: frames on the host, ticks alone, first frame, memory.

Each length runs in a process of its own, so that its peak memory is its own.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import platform
import resource
import time
from typing import Any

import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.tasks import generate
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    stream: the model and how it is sampled.
    lengths: seconds of video, one measurement each.
    output: JSON file; empty prints only.
  """

  stream: generate.Config = dataclasses.field(default_factory=generate.Config)
  lengths: tuple[float, ...] = (10.0, 120.0)
  output: str = ''


def run(config: Config) -> None:
  """Measures every length, prints a table, writes JSON if asked to."""
  if not config.lengths or min(config.lengths) <= 0:
    raise UserError('lengths must name at least one positive number of seconds')
  if config.output:
    files.check_writable(pathlib.Path(config.output))
  context = multiprocessing.get_context('spawn')
  rows = []
  for seconds in config.lengths:
    say(f'streaming {seconds:g} s')
    stream = dataclasses.replace(config.stream, seconds=seconds)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
      rows.append(pool.submit(measure, stream).result())
  for row in rows:
    print(', '.join(f'{name} {value}' for name, value in row.items()))
  peaks = [row['peak_memory_mb'] for row in rows]
  if len(peaks) > 1:
    print(f'peak memory, last / first: {peaks[-1] / peaks[0]:.4f}')
  if config.output:
    report = {'settings': dataclasses.asdict(config), 'rows': rows}
    with files.replacing(config.output) as file:
      file.write((json.dumps(report, indent=1) + '\n').encode())


def measure(config: generate.Config) -> dict[str, Any]:
  """Streams one video, warm, and measures it.

  Returns:
    seconds of video, frames; compile_s; first_frame_s (prompt encoded ->
    first frames on the host); steady frames per second on the host and of
    the ticks alone; median and 99th percentile of a chunk in ms; how often
    anything was compiled once the stream ran; peak resident memory in MB;
    versions.
  """
  import jax

  from jaxvid.stream import frames as frames_lib
  from jaxvid.stream import stream
  from jaxvid.tasks.evaluate import Sampler

  began = time.perf_counter()
  sampler = Sampler.load(config)
  settings, params = sampler.settings, sampler.params
  text, negative = sampler.embed([config.prompt])
  key = jax.random.key(config.seed)

  def start():
    return stream.init(settings, params, text, key, negative)

  def play(chunks):
    return frames_lib.frames(settings, params, start(), sampler.decoder, chunks)

  compilations = []

  def listen(event: str, duration: float, **_: Any) -> None:
    if 'backend_compile' in event:
      compilations.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  for _ in play(3):
    pass
  compiled, before = time.perf_counter(), len(compilations)
  times, frames = [time.perf_counter()], []
  for piece in play(sampler.request.num_chunks):
    times.append(time.perf_counter())
    frames.append(piece.shape[1])
  again = len(compilations) - before
  alone = _ticks_alone(settings, params, start())
  chunks = np.diff(times)[1:] * 1000
  steady = sum(frames[1:]) / (times[-1] - times[1])
  return {
    'seconds': config.seconds,
    'frames': sum(frames),
    'compile_s': round(compiled - began, 2),
    'first_frame_s': round(times[1] - times[0], 4),
    'frames_per_s_on_host': round(steady, 2),
    'frames_per_s_denoise_only': round(4 * settings.memory.chunk / alone, 2),
    'chunk_ms_p50': round(float(np.percentile(chunks, 50)), 2),
    'chunk_ms_p99': round(float(np.percentile(chunks, 99)), 2),
    'compiled_again': again,
    'peak_memory_mb': round(
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
    ),
    'device': jax.devices()[0].device_kind,
    'cores': multiprocessing.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
  }


def _ticks_alone(settings, params, state, count: int = 10) -> float:
  """Seconds per chunk without a decoder."""
  from jaxvid.stream import stream

  ticks, step = (
    stream.chunk_ticks(settings.schedule, 0),
    stream.jitted_step(settings),
  )
  state, latents = step(params, state, ticks)
  latents.block_until_ready()
  began = time.perf_counter()
  for _ in range(count):
    state, latents = step(params, state, ticks)
  latents.block_until_ready()
  return (time.perf_counter() - began) / count
