"""Times a stream: frames on the host, ticks alone, first frame, memory.

Every measurement runs in a fresh process, which starts with the same warm-up.
The highest memory of a process is that of the compiler and differs by some
percent from run to run, whatever follows; whether a stream's memory depends on
its length shows only in what is held while it runs.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import time
from typing import Any

import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.tasks import generate, resident
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    stream: the model and how it is sampled.
    lengths: seconds of video.
    repeats: measurements of each; figures are medians.
    output: JSON file; empty prints only.
  """

  stream: generate.Config = dataclasses.field(default_factory=generate.Config)
  lengths: tuple[float, ...] = (10.0, 120.0)
  repeats: int = 3
  output: str = ''


def run(config: Config) -> None:
  """Measures every length, prints a table, writes JSON if asked to."""
  if not config.lengths or min(config.lengths) <= 0:
    raise UserError('lengths must name at least one positive number of seconds')
  if config.repeats < 1:
    raise UserError(f'repeats must be at least 1, not {config.repeats}')
  if config.output:
    files.check_writable(pathlib.Path(config.output))
  context = multiprocessing.get_context('spawn')
  runs = []
  for i in range(config.repeats):
    for seconds in config.lengths:
      say(f'streaming {seconds:g} s ({i + 1} of {config.repeats})')
      stream = dataclasses.replace(config.stream, seconds=seconds)
      with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        runs.append(pool.submit(measure, stream).result())
  count = len(config.lengths)
  rows = [combine(runs[i::count]) for i in range(count)]
  for row in rows:
    print(', '.join(f'{name} {value}' for name, value in row.items()))
  ratio = compare(rows)
  if ratio is not None:
    print(f'memory while streaming, last / first: {ratio:.4f}')
  if config.output:
    report = {
      'settings': dataclasses.asdict(config),
      'stream_peak_last_to_first': ratio,
      'rows': rows,
      'runs': runs,
    }
    with files.replacing(config.output) as file:
      file.write((json.dumps(report, indent=1) + '\n').encode())


def combine(runs: list[dict[str, Any]]) -> dict[str, Any]:
  """Medians over runs of one length, and how far apart the memories are."""
  row = {}
  for name, value in runs[0].items():
    values = [run[name] for run in runs]
    numbers = isinstance(value, float)
    row[name] = round(float(np.median(values)), 4) if numbers else max(values)
  if isinstance(row['stream_peak_mb'], float):
    peaks = [run['stream_peak_mb'] for run in runs]
    row['stream_peak_mb_range'] = [min(peaks), max(peaks)]
  return row


def compare(rows: list[dict[str, Any]]) -> float | None:
  """Memory while streaming of the last length by that of the first."""
  first, last = (rows[i]['stream_peak_mb'] for i in (0, -1))
  return round(last / first, 4) if len(rows) > 1 and first else None


def measure(config: generate.Config) -> dict[str, Any]:
  """Streams one video, warm, and measures it.

  Returns:
    seconds of video, frames; compile_s; first_frame_s (prompt encoded ->
    first frames on the host); steady frames per second on the host and of
    the ticks alone; median and 99th percentile of a chunk in ms; how often
    anything was compiled once the stream ran; resident memory in MB: at the
    highest of the process (the compiler's), at the highest of the stream
    after its warm-up, and by how much its last third exceeds its first
    (0 where the system does not tell); versions.
  """
  import jax

  from jaxvid.stream import frames as frames_lib
  from jaxvid.stream import stream
  from jaxvid.tasks import startup
  from jaxvid.tasks.sampler import Sampler

  # What is timed is a first start, whatever ran before.
  jax.config.update('jax_enable_compilation_cache', False)
  resident.settle()  # As the player does.
  began = time.perf_counter()
  sampler = Sampler.load(config)
  settings, params = startup.quickened(config, sampler.settings, sampler.params)
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
  for _ in play(settings.memory.capacity // settings.memory.chunk + 2):
    pass  # Until the memory is full, and frames flow beside the next chunk.
  compiled, before = time.perf_counter(), len(compilations)
  # Starting anew makes the system forget the compiler's highest.
  peak, known = _highest_mb(), resident.start_anew()
  times, frames, held = [time.perf_counter()], [], []
  for piece in play(sampler.request.num_chunks):
    times.append(time.perf_counter())
    frames.append(piece.shape[1])
    held.append(resident.held() or (0.0, 0.0))
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
    'peak_memory_mb': round(max(peak, _highest_mb()), 1),
    'stream_peak_mb': round(held[-1][1], 1) if known else 0.0,
    'stream_growth_mb': round(_growth([now for now, _ in held]), 1),
    **machine(),
  }


def machine() -> dict[str, Any]:
  """Where it was measured, and with what."""
  import jax

  return {
    'device': jax.devices()[0].device_kind,
    'cores': cores(),
    'python': platform.python_version(),
    'jax': jax.__version__,
  }


def cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _highest_mb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _growth(values: list[float]) -> float:
  """Median of the last third less that of the first."""
  third = max(1, len(values) // 3)
  return float(np.median(values[-third:]) - np.median(values[:third]))


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
