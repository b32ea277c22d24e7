"""A video for every script of a set: one prompt per chunk, changing in time."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxvid.data.videos.captions import Caption, Script
from jaxvid.errors import UserError
from jaxvid.tasks import generate
from jaxvid.tasks.progress import progress, say

if TYPE_CHECKING:
  from jaxvid.tasks.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class ScriptConfig:
  """Which scripts become videos, and how.

  Attributes:
    source: annotations (.json, .jsonl) or a data set that
      configs/videos/lv_bench.py built; empty: nothing is generated.
    split: of the scripts: train, test or all.
    seed: of the split of annotations.
    count: the first so many; 0 = all.
    seconds: length of the videos; 0: that of the script.
    stream: the model and how it is sampled; prompt, seconds and output are
      not used.
  """

  source: str = ''
  split: Literal['train', 'test', 'all'] = 'test'
  seed: int = 0
  count: int = 0
  seconds: float = 0.0
  stream: generate.Config = dataclasses.field(default_factory=generate.Config)

  def __post_init__(self):
    if self.count < 0 or self.seconds < 0:
      raise UserError(
        f'count and seconds must be >= 0, not {self.count} and {self.seconds:g}'
      )


def load(config: ScriptConfig) -> list[Script]:
  """The scripts that are asked for."""
  from jaxvid.data.videos import captions, lv_bench

  path = pathlib.Path(config.source).expanduser()
  names = lv_bench.SPLITS if config.split == 'all' else (config.split,)
  if path.is_dir():
    scripts = [s for name in names for s in lv_bench.read(path, name)]
  else:
    parts = lv_bench.split(captions.read_scripts(path), config.seed)
    scripts = [script for name in names for script in parts[name]]
  if not scripts:
    raise UserError(f'{config.source} has no scripts in {config.split!r}')
  return scripts[: config.count or None]


def file_name(name: str) -> str:
  """A script's name as that of an mp4."""
  stem = re.sub(r'\.(mp4|webm|mkv|mov|avi|m4v)$', '', name, flags=re.IGNORECASE)
  return re.sub(r'[^\w.-]+', '-', stem).strip('-.') + '.mp4'


def prompt_at(captions: Sequence[Caption], time: float) -> str:
  """What is to be seen then; between two captions the earlier one's text."""
  said = [caption for caption in captions if caption.start <= time]
  return (said or captions[:1])[-1].text


def generate_all(config: ScriptConfig, folder: pathlib.Path) -> None:
  """Makes the videos that are missing in `folder`.

  Raises:
    UserError: a model that makes whole clips only, or two scripts of a name.
  """
  scripts = load(config)
  names = [file_name(script.name) for script in scripts]
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise UserError(f'two scripts would be written to {twice}')
  todo = [
    (i, script, folder / name)
    for i, (script, name) in enumerate(zip(scripts, names, strict=True))
    if not (folder / name).exists()
  ]
  if len(todo) < len(scripts):
    say(f'{len(scripts) - len(todo)} of {len(scripts)} videos are there')
  if not todo:
    return
  from jaxvid.data import video
  from jaxvid.tasks.sampler import Sampler

  sampler = Sampler.load(config.stream)
  if sampler.request.schedule.bidirectional:
    raise UserError('scripts need a stream; schedule=teacher makes whole clips')
  with progress(len(todo), 'videos') as update:
    for done, (number, script, path) in enumerate(todo, 1):
      with video.writer(path, generate.FPS, config.stream.upscale) as put:
        for frames in play(sampler, script, config.seconds, number):
          put(frames)
      update(done, path.name)


def play(
  sampler: 'Sampler', script: Script, seconds: float, number: int
) -> Iterator[np.ndarray]:
  """The frames of one script, uint8 `[n, H, W, 3]`, chunk by chunk.

  A chunk is told what the script says of its first frame. What a new prompt
  does to memory and ticks is `stream.switch`; as BlockVid has it, `cache=keep`.

  Args:
    sampler: the model.
    script: what to show.
    seconds: length; 0: the script's.
    number: of the script; decides the noise together with the config's seed.
  """
  import jax

  from jaxvid.data.scripts import chunk_starts
  from jaxvid.tasks import scripted

  seconds = seconds or script.seconds
  if math.isinf(seconds):
    seconds = sampler.config.seconds
  config = dataclasses.replace(sampler.config, seconds=seconds)
  left, latents = generate.count_frames(config)
  starts = chunk_starts(latents, sampler.request.chunk) / generate.FPS
  prompts = [prompt_at(script.captions, time) for time in starts]
  key = jax.random.fold_in(jax.random.key(config.seed), number)
  for frames in scripted.steered(sampler, [[p] for p in prompts], key):
    frames = frames[0, :left]
    left -= len(frames)
    yield frames
