"""Samples solver trajectories of a teacher and caches them for a student.

Kept are the latents at the time steps where the student will be asked, and
the clean end. The solver passes through those time steps exactly.
"""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxvid.data import prompt_sources
from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError
from jaxvid.tasks.progress import progress

if TYPE_CHECKING:
  from jaxvid.tasks.pair_sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    weights: a bundle (packaged name, folder, hub id), a folder of weights or
      a training run.
    target: folder of the cache; made if missing, continued if not.
    tokenizer: of weights that are no bundle; empty for a bundle.
    checkpoint: see `generate.Config`.
    lora: see `generate.Config`.
    source: 'teacher' samples whole clips with a bidirectional model, 'causal'
      chunk after chunk with a causal one, against its own clean past.
    schedule: the student's ticks, whose time steps are kept.
    steps: of the solver.
    shift: of the solver's own time steps.
    solver: 'euler' or 'unipc'.
    guidance: weight w in u + w (c - u).
    negative_prompt: what guidance leads away from.
    frames: latent frames per clip F.
    height: of the frames in pixels; 0 for the bundle's own.
    width: of the frames in pixels; 0 for the bundle's own.
    chunk: of the causal model, latent frames.
    sink: of its memory, latent frames.
    window: of its memory; 0 = the whole clip.
    positions: of its memory, 'absolute' or 'relative'.
    prompts: where they come from; a list that is too short is begun anew.
    clips: clips wanted in all.
    shard: clips per shard; a killed job loses at most one shard.
    batch: clips sampled at once.
    seed: of noise and wording; clip i depends on it and i alone.
    worker: this process writes shard i where i % workers = worker.
    workers: processes that fill the cache together.
    dtype: of the computation; empty: bfloat16 on a GPU, float32 elsewhere.
  """

  weights: str
  target: str
  tokenizer: str = ''
  checkpoint: str = ''
  lora: str = ''
  source: Literal['teacher', 'causal'] = 'teacher'
  schedule: Spec = dataclasses.field(
    default_factory=lambda: Spec('self_forcing')
  )
  steps: int = 48
  shift: float = 5.0
  solver: Literal['euler', 'unipc'] = 'euler'
  guidance: float = 3.0
  negative_prompt: str = ''
  frames: int = 21
  height: int = 0
  width: int = 0
  chunk: int = 3
  sink: int = 0
  window: int = 0
  positions: Literal['absolute', 'relative'] = 'absolute'
  prompts: PromptConfig = dataclasses.field(default_factory=PromptConfig)
  clips: int = 1024
  shard: int = 64
  batch: int = 16
  seed: int = 0
  worker: int = 0
  workers: int = 1
  dtype: Literal['', 'float32', 'bfloat16'] = ''

  def __post_init__(self):
    if self.shard < 1 or self.batch < 1 or self.shard % self.batch:
      raise UserError(
        f'shard must be a multiple of batch, not {self.shard} and {self.batch}'
      )
    if not 0 <= self.worker < self.workers:
      raise UserError(
        f'worker must be from 0 to workers - 1 = {self.workers - 1}, not '
        f'{self.worker}'
      )
    if self.clips < 1 or self.frames < 1:
      raise UserError(
        f'clips and frames must be >= 1, not {self.clips} and {self.frames}'
      )
    if self.source == 'causal' and self.frames % self.chunk:
      raise UserError(
        f'frames must be a multiple of chunk, not {self.frames} and '
        f'{self.chunk}'
      )


def run(config: Config) -> None:
  """Writes the shards that are missing and says how it goes."""
  from jaxvid.data import shards, trajectories
  from jaxvid.tasks import pair_sampler
  from jaxvid.training import ode

  levels = ode.student_levels(config.schedule)
  sources = prompt_sources.open_prompts(config.prompts)
  sampler = pair_sampler.load(config, levels)
  folder = pathlib.Path(config.target)
  shards.prepare(
    folder,
    _settings(config, levels, sampler, sources),
    lambda index: index % config.workers == config.worker,
  )
  shape = (len(levels) + 1, config.frames, *sampler.size)
  total = -(-config.clips // config.shard)
  mine = range(config.worker, total, config.workers)
  with progress(len(mine) * config.shard, 'clips') as update:
    for done, index in enumerate(mine):
      note = functools.partial(_note, update, done * config.shard)
      examples = _sampled(config, sampler, sources, index, note)
      trajectories.write_shard(folder, index, shape, examples)
      update((done + 1) * config.shard, f'shard {index + 1}/{total}')
  print(folder)


def _note(update: Callable[[int, str], None], before: int, done: int) -> None:
  update(before + done, '')


def _settings(
  config: Config, levels: Sequence[float], sampler: 'Sampler', sources
) -> dict[str, Any]:
  """What decides the content of the cache."""
  settings = dataclasses.asdict(config)
  places = ('weights', 'target', 'tokenizer', 'checkpoint', 'lora', 'schedule')
  counts = ('clips', 'batch', 'worker', 'workers', 'height', 'width', 'prompts')
  causal = ('chunk', 'sink', 'window', 'positions')
  for name in (*places, *counts):
    del settings[name]
  if config.source == 'teacher':
    for name in causal:
      del settings[name]
  prompts = dataclasses.asdict(config.prompts)
  prompts['scenes'] = config.prompts.scenes.content(False)
  if config.prompts.file:
    texts = '\n'.join(text for (text,) in sources[0])
    prompts = {'list': f'{zlib.crc32(texts.encode()):08x}'}
  return {
    **settings,
    'levels': levels,
    'size': sampler.size,
    'dtype': sampler.settings.dtype,
    'prompts': prompts,
    'model': sampler.fingerprint,
  }


def _sampled(
  config: Config, sampler: 'Sampler', sources, shard: int, note
) -> Iterator[dict[str, Any]]:
  """Yields the examples of one shard."""
  first = shard * config.shard
  for start in range(0, config.shard, config.batch):
    index = range(first + start, first + start + config.batch)
    prompts = [prompt_of(sources, i, config.seed) for i in index]
    for prompt, kept in zip(prompts, sampler(prompts, index), strict=True):
      yield {'trajectory': kept, 'prompt': prompt}
    note(start + config.batch)


def prompt_of(sources, index: int, seed: int) -> str:
  """Prompt of clip `index`; sources that are too short begin anew."""
  place = index % sum(len(source) for source in sources)
  for source in sources:
    if place < len(source):
      break
    place -= len(source)
  texts = source[place]
  return texts[int(np.random.default_rng((seed, index)).integers(len(texts)))]
