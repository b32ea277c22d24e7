"""The figures of a stream: each function measures one thing on a rig.

Everything ends with data on the host or a blocked array: on a GPU programs
only start when they are called.
"""

import contextlib
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxvid.models import text as text_lib
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, switch
from jaxvid.tasks.speed_rig import Rig, on_gpu, random_tree, text_encoder

Figures = dict[str, Any]
CLIP = 81  # frames of the clip that papers time


def compiling(rig: Rig) -> Figures:
  """Seconds to compile a first and a steady chunk, and to do so again.

  Again: traced anew, and the programs found in the cache on disk.
  """
  with tempfile.TemporaryDirectory() as folder:
    with _programs_in(folder):
      figures = {'compile_s': _compile(rig)}
      jax.clear_caches()
      stream.jitted_step.cache_clear()
      figures['warm_start_s'] = _compile(rig)
  return figures


@contextlib.contextmanager
def _programs_in(folder: str) -> Iterator[None]:
  """Compiled programs are kept in a new folder for a while."""
  values = {
    'jax_compilation_cache_dir': folder,
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
    'jax_enable_compilation_cache': True,
  }
  before = {name: getattr(jax.config, name) for name in values}
  try:
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()


def _compile(rig: Rig) -> float:
  began = time.perf_counter()
  schedule = rig.settings.schedule
  state, latents = _chunk(rig, rig.start(), 0)
  state, latents = _chunk(rig, state, len(schedule.rows))
  rig.decoder.compile(latents)
  return time.perf_counter() - began


def _chunk(rig: Rig, state, index: int):
  step = stream.jitted_step(rig.settings)
  ticks = stream.chunk_ticks(rig.settings.schedule, index)
  return step(rig.params, state, ticks)


def filled(rig: Rig, extra: int = 0) -> tuple[stream.State, jax.Array]:
  """A stream whose memory is full, and `extra` chunks more; its last chunk."""
  memory = rig.settings.memory
  count = -(-(memory.sink + memory.window) // memory.chunk)
  state, latents = rig.start(), None
  for i in range(count + max(extra, len(rig.settings.schedule.rows) - count)):
    state, latents = _chunk(rig, state, i)
  return state, jax.block_until_ready(latents)


def ticks_alone(rig: Rig, chunks: int) -> Figures:
  """Steady chunks without a decoder: frames/s, ms per chunk and per forward."""
  state, _ = filled(rig, 1)
  index = 10**6  # far behind the first: the schedule's last row
  began = time.perf_counter()
  for _ in range(chunks):
    state, latents = _chunk(rig, state, index)
  latents.block_until_ready()
  seconds = (time.perf_counter() - began) / chunks
  calls = rig.settings.schedule.calls(index)
  return {
    'denoise_frames_per_s': _frames(rig) / seconds,
    'in_flight_ms': 1e3 * seconds,
    'forward_ms': 1e3 * seconds / calls,
    'forwards_per_chunk': calls,
  }


def _frames(rig: Rig) -> int:
  """Video frames of a chunk."""
  return rig.decoder.config.time_factor * rig.settings.memory.chunk


def decoding(rig: Rig, chunks: int) -> Figures:
  """Milliseconds of decoding a steady chunk on the device."""
  _, latents = filled(rig)
  state = rig.decoder.init_state(latents)
  video, state = rig.decoder(latents, state, True)
  video, state = rig.decoder(latents, state, False)
  video.block_until_ready()
  began = time.perf_counter()
  for _ in range(chunks):
    video, state = rig.decoder(latents, state, False)
  video.block_until_ready()
  return {'decode_ms': 1e3 * (time.perf_counter() - began) / chunks}


def steady(rig: Rig, chunks: int) -> Figures:
  """Frames on the host per second with a full memory, and their rhythm."""
  pieces = _play(rig)
  _skip(rig, pieces)
  marks = [time.perf_counter()]
  for _ in range(chunks):
    next(pieces)
    marks.append(time.perf_counter())
  pieces.close()
  gaps = 1e3 * np.diff(marks)
  p50, p90, p99 = (float(np.percentile(gaps, q)) for q in (50, 90, 99))
  return {
    'frames_per_s': _frames(rig) * chunks / (marks[-1] - marks[0]),
    'chunk_p50_ms': p50,
    'chunk_p90_ms': p90,
    'chunk_p99_ms': p99,
    'chunk_max_ms': float(gaps.max()),
    'jitter_ms': float(gaps.std()),
    'p99_to_p50': p99 / p50,
  }


def _play(rig: Rig, chunks: int | None = None) -> Iterator[np.ndarray]:
  return frames_lib.frames(
    rig.settings, rig.params, rig.start(), rig.decoder, chunks
  )


def _skip(rig: Rig, pieces: Iterator[np.ndarray]) -> None:
  """Until the memory is full and chunks flow."""
  memory = rig.settings.memory
  fill = -(-(memory.sink + memory.window) // memory.chunk)
  for _ in range(max(fill, len(rig.settings.schedule.rows)) + 5):
    next(pieces)


def soak(rig: Rig, seconds: float, bins: int = 10) -> Figures:
  """Frames per second over a long run, in equal parts of it."""
  pieces = _play(rig)
  _skip(rig, pieces)
  began = time.perf_counter()
  marks = []
  while not marks or marks[-1] < seconds:
    next(pieces)
    marks.append(time.perf_counter() - began)
  pieces.close()
  edges = np.linspace(0, marks[-1], bins + 1)
  counts, _ = np.histogram(marks, edges)
  rates = _frames(rig) * counts / (edges[1] - edges[0])
  return {
    'soak_s': marks[-1],
    'soak_frames_per_s': [float(rate) for rate in rates],
    'soak_last_to_first': float(
      rates[-3:].mean() / max(rates[:3].mean(), 1e-9)
    ),
  }


def clip_and_first_frame(rig: Rig, repeats: int = 3) -> Figures:
  """Medians of a whole clip's time and of its first frames'.

  From the prompt's embedding to frames on the host: text keys and values,
  ticks, decoding, copy.
  """
  firsts, clips = [], []
  frames = rig.settings.memory.chunk * rig.decoder.config.time_factor
  for _ in range(repeats + 1):
    began, done, marks = time.perf_counter(), 0, []
    for piece in _play(rig, -(-(CLIP + 3) // frames)):
      done += piece.shape[1]
      marks.append(time.perf_counter() - began)
      if done >= CLIP:
        break
    firsts.append(marks[0])
    clips.append(marks[-1])
  # The first round loads programs that were compiled, but not yet run.
  return {
    'first_frame_s': float(np.median(firsts[1:])),
    'clip_s': float(np.median(clips[1:])),
    'clip_frames': CLIP,
  }


def text_encoding(rig: Rig, size: str) -> Figures:
  """Milliseconds of encoding a prompt; the encoder is gone afterwards."""
  from jaxvid.convert import specs

  config, dtype = text_encoder(size), jnp.dtype(rig.settings.dtype)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype if x.ndim > 1 else x.dtype),
    specs.abstract('text', config),
  )
  params = random_tree(shapes)
  rows = rig.settings.config.text_len
  ids = jnp.ones((1, rows), jnp.int32)
  encode = jax.jit(
    lambda params, ids: text_lib.encode(
      config, params, ids, jnp.ones_like(ids), dtype
    )
  )
  encode(params, ids).block_until_ready()
  began = time.perf_counter()
  encode(params, ids).block_until_ready()
  return {'text_encode_s': time.perf_counter() - began}


def prompt_switch(rig: Rig, repeats: int = 3) -> Figures:
  """From a new prompt's embedding to the first frames that show it."""
  settings, params = rig.settings, rig.params
  memories, shown = [], []
  encode = jax.jit(
    lambda params, text: stream.encode_prompt(settings, params, text)
  )
  for _ in range(repeats + 1):
    state, latents = filled(rig)
    past = switch.new_past(settings, state)
    past = switch.remember(settings, past, state, latents)
    decoder_state = rig.decoder.init_state(latents)
    video, decoder_state = rig.decoder(latents, decoder_state, True)
    video.block_until_ready()
    began = time.perf_counter()
    text = encode(params, rig.text)
    state, past = switch.switch(
      settings, params, state, past, text, switch.SwitchConfig()
    )
    jax.block_until_ready(state.memory.k)
    memories.append(time.perf_counter() - began)
    _, latents = _chunk(rig, state, 10**6)
    video, _ = rig.decoder(latents, decoder_state, False)
    np.asarray(video)
    shown.append(time.perf_counter() - began)
  return {
    'switch_ms': 1e3 * float(np.median(memories[1:])),
    'switch_to_frames_ms': 1e3 * float(np.median(shown[1:])),
  }


def memory() -> Figures:
  """Highest memory so far: of the device, or of the process on a CPU."""
  if on_gpu():
    stats = jax.devices()[0].memory_stats() or {}
    return {'peak_device_gb': stats.get('peak_bytes_in_use', 0) / 1e9}
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return {'peak_host_gb': peak / 1e9}


def machine() -> Figures:
  """The card and the versions."""
  import importlib.metadata
  import os
  import platform

  device = jax.devices()[0]
  client = getattr(device, 'client', None)
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'driver': str(getattr(client, 'platform_version', '')).splitlines()[:1],
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'jaxlib': importlib.metadata.version('jaxlib'),
    'date': time.strftime('%Y-%m-%d'),
  }
