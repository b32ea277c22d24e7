"""Puts a transformer into 8 bits: calibrates, measures, writes a bundle.

The transformer streams some prompts. A first pass notes the range of every
layer's input at each time step that the schedule has; a second one compares
every layer in 8 bits with itself on the same input. Layers whose relative
error is above `max_error` stay as they are, with those that read the same
input. At last both models stream the same noise.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxvid.data import files
from jaxvid.data.prompts import read_prompts
from jaxvid.errors import UserError
from jaxvid.quantization import observe, tree
from jaxvid.quantization.kernels import Scheme
from jaxvid.storage import weights
from jaxvid.stream import stream
from jaxvid.tasks import bundle as bundles
from jaxvid.tasks import calibration, generate
from jaxvid.tasks.evaluate import captioned
from jaxvid.tasks.progress import say
from jaxvid.tasks.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    stream: the model and how it is sampled.
    target: folder of the new bundle; it may not exist.
    mode: `int8` (weights alone), `w8a8` or `fp8` (inputs too).
    inputs: scales of 8-bit inputs: `static`, or `token` (w8a8 alone).
    rank: of the branch in full precision beside each kernel; 0 = none.
    smoothing: strength with which outliers of inputs move into kernels,
      0 (none) to below 1.
    max_error: relative error above which a layer stays as it is.
    base: bundle that the new one takes its other parts from, whose text
      encoder is the model's own; empty: the model.
    prompts: file of prompts; empty: captions of the shapes world.
    count: prompts to calibrate with.
    chunks: chunks of each.
    seed: of captions and noise.
  """

  stream: generate.Config = dataclasses.field(default_factory=generate.Config)
  target: str = ''
  mode: Literal['int8', 'w8a8', 'fp8'] = 'int8'
  inputs: Literal['static', 'token'] = 'static'
  rank: int = 0
  smoothing: float = 0.0
  max_error: float = 0.1
  base: str = ''
  prompts: str = ''
  count: int = 8
  chunks: int = 4
  seed: int = 0


def run(config: Config) -> None:
  """Writes the bundle and its report, and prints a table."""
  scheme = check(config)
  target = pathlib.Path(config.target).expanduser()
  texts = prompts(config)
  sampler = Sampler.load(config.stream)
  source = sampler.bundle.read('dit')
  if config.base:
    check_base(config.base, sampler.bundle)
  if tree.is_quantized(source):
    raise UserError(f'{config.stream.weights} is quantised already')
  embeds = sampler.embed(texts)
  key = jax.random.key(config.seed)
  job = (sampler.settings, sampler.params, *embeds, key, config.chunks)

  say('ranges of the inputs')
  ranges = gather(job, observe.input_range, np.maximum)
  tops = {n: np.max(list(by_t.values()), 0) for n, by_t in ranges.items()}
  params = tree.quantize(source, scheme, tops)

  say('errors of the layers')
  measure = observe.rounding_error(source, params)
  errors = gather(job, measure, np.add)
  layers = table(ranges, errors)
  keep = sensitive(tree.groups(source), layers, config.max_error)
  params = tree.quantize(source, scheme, tops, keep)
  for name in keep:
    layers[name]['kept'] = True

  say('both models on the same noise')
  report = {
    'settings': dataclasses.asdict(config),
    'sizes': sizes(source, params),
    'latents': compare(sampler, params, embeds, key, config.chunks),
    'kept': sorted(keep),
    'layers': layers,
  }
  head = {**sampler.bundle.head(), 'quantization': dataclasses.asdict(scheme)}
  for other in set(bundles.KINDS) - {'dit'}:
    head.pop(other, None)
  weights.save(target / 'dit', tree.encode(params), head)
  base = bundles.find(config.base or config.stream.weights)
  packaged = base.parent == bundles.PACKAGED
  place = base.name if packaged else os.path.relpath(base, target)
  bundles.save_bundle(target, {'dit': 'dit'}, sampler.bundle.size, place)
  files.write_json(target / 'report.json', report)
  show(report)
  print(target)


def check(config: Config) -> Scheme:
  """Finds mistakes before anything is loaded."""
  scheme = Scheme(config.mode, config.inputs, config.rank, config.smoothing)
  for name in ('count', 'chunks'):
    if getattr(config, name) < 1:
      raise UserError(f'{name} must be at least 1, not {getattr(config, name)}')
  if not config.max_error > 0:
    raise UserError(f'max_error must be positive, not {config.max_error:g}')
  if not config.target:
    raise UserError('target is empty; name a folder for the new bundle')
  if pathlib.Path(config.target).expanduser().exists():
    raise UserError(f'the target {config.target} exists; name a new folder')
  return scheme


def check_base(base: str, model: bundles.Bundle) -> None:
  """UserError unless a bundle tells the model what its own parts would."""
  mine, others = (x.read('text') for x in (model, bundles.open_bundle(base)))
  same = jax.tree.structure(mine) == jax.tree.structure(others) and all(
    map(np.array_equal, jax.tree.leaves(mine), jax.tree.leaves(others))
  )
  if not same:
    raise UserError(f"base: the text encoder of {base} is not the model's")


def prompts(config: Config) -> list[str]:
  """Prompts to calibrate with."""
  if config.prompts:
    found = read_prompts(config.prompts)[: config.count]
    if not found:
      raise UserError(f'{config.prompts} holds no prompts')
    return found
  return [text for _, text in captioned(1, config.count, config.seed)]


def gather(job, measure, combine) -> dict[str, dict[float, np.ndarray]]:
  """Measures of every layer by time step, combined over calls."""
  found: dict[str, dict[float, np.ndarray]] = {}
  settings, params, *rest = job
  for t, seen in calibration.ticks(settings, params, *rest, measure=measure):
    for name, value in seen.items():
      by_t, value = found.setdefault(name, {}), np.asarray(value)
      by_t[t] = combine(by_t[t], value) if t in by_t else value
  return found


def table(ranges, errors) -> dict[str, dict[str, Any]]:
  """Of every layer: relative error, and by time step error and range."""
  rows = {}
  for name, by_t in errors.items():
    error, norm = np.sum(list(by_t.values()), 0)
    rows[name] = {
      'error': ratio(error, norm),
      'error_by_t': {f'{t:g}': ratio(*pair) for t, pair in by_t.items()},
      'range_by_t': {
        f'{t:g}': round(float(top.max()), 4) for t, top in ranges[name].items()
      },
      'kept': False,
    }
  return rows


def ratio(error: float, norm: float) -> float:
  """Relative error of squared sums."""
  return round(float(np.sqrt(error / max(norm, 1e-30))), 6)


def sensitive(
  groups: list[tuple[str, ...]],
  layers: Mapping[str, Mapping[str, Any]],
  max_error: float,
) -> frozenset[str]:
  """Layers that stay: any of their group is above the largest error."""
  return frozenset(
    name
    for group in groups
    if max(layers[name]['error'] for name in group) > max_error
    for name in group
  )


def sizes(source, params) -> dict[str, float]:
  """Bytes of the transformer, as it was stored and in 8 bits."""
  before, after = tree.size(source), tree.size(params)
  half = tree.size(source, 'bfloat16')
  return {
    'bytes': before,
    'bytes_bfloat16': half,
    'bytes_quantized': after,
    'ratio_to_bfloat16': round(after / half, 4),
  }


def compare(sampler: Sampler, params, embeds, key, chunks: int):
  """Relative error of latents by chunk, and seconds per chunk of one stream."""
  settings, dtype = sampler.settings, sampler.settings.dtype
  placed = sampler.bundle.place('dit', dtype, lambda _: params)
  videos, seconds = [], []
  for each in (sampler.params, placed):
    run = stream.jitted_step(settings)
    latents, state = [], stream.init(settings, each, *_keyed(embeds, key))
    for i in range(chunks):
      ticks = stream.chunk_ticks(settings.schedule, i)
      state, x = run(each, state, ticks)
      latents.append(np.asarray(x))
    videos.append(latents)
    alone = (None if e is None else e[:1] for e in embeds)
    state = stream.init(settings, each, *_keyed(tuple(alone), key))
    state, _ = run(each, state, ticks)
    times = []
    for _ in range(5):
      began = time.perf_counter()
      state, x = run(each, state, ticks)
      x.block_until_ready()
      times.append(time.perf_counter() - began)
    seconds.append(round(float(np.median(times)), 5))
  errors = [
    ratio(np.sum((a - b) ** 2), np.sum(a * a))
    for a, b in zip(*videos, strict=True)
  ]
  return {
    'error_by_chunk': errors,
    'seconds_per_chunk': seconds,
    'speed_ratio': round(seconds[0] / seconds[1], 3),
    'device': jax.devices()[0].device_kind,
  }


def _keyed(embeds, key):
  text, negative = embeds
  return text, key, negative


def show(report: dict[str, Any]) -> None:
  """The worst layers, and the whole as one row per model."""
  rows = sorted(report['layers'].items(), key=lambda r: -r[1]['error'])
  print('relative error of layers, worst first:')
  for name, row in rows[:8]:
    note = '  (stays as it is)' if row['kept'] else ''
    print(f'  {name:28s} {row["error"]:.4f}{note}')
  size, latents = report['sizes'], report['latents']
  before, after = latents['seconds_per_chunk']
  errors = ', '.join(f'{e:.3f}' for e in latents['error_by_chunk'])
  print('precision   size (MB)   s/chunk   error of latents by chunk')
  print(f'bfloat16    {size["bytes_bfloat16"] / 1e6:9.3f}   {before:7.4f}   -')
  mode = report['settings']['mode']
  name = f'{mode:9s}   {size["bytes_quantized"] / 1e6:9.3f}'
  print(f'{name}   {after:7.4f}   {errors}')
