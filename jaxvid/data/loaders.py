"""Input pipelines: random-access sources, shuffled, repeated and batched.

grain reads them; its state is a few numbers, so a run resumes with exactly
the batches it would have seen. grain and TFDS are imported when used.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvid.data import prompt_sources
from jaxvid.data.prompt_sources import PromptConfig
from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import render
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError

Transform = Callable[[Any, np.random.Generator], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class RenderedShapes:
  """Captioned clips of the shapes world, drawn when asked for.

  Element i depends on the seed and i alone: `{'video': uint8 [F, H, W, 3],
  'captions': list of texts, 'scene': Scene}`.

  Attributes:
    settings: what scenes may show, and the size of the picture.
    frames: frames per clip F.
    seed: of the scenes and captions.
    styles: captions per clip.
    size: number of clips.
  """

  settings: scene_lib.SceneSettings
  frames: int
  seed: int = 0
  styles: int = 8
  size: int = 1 << 30

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> dict[str, Any]:
    rng = np.random.default_rng((self.seed, int(index)))
    scene = scene_lib.sample_scene(rng, self.settings)
    size = self.settings.height, self.settings.width
    return {
      'video': render.render(scene, self.frames, *size),
      'captions': captions_lib.captions(scene, self.styles, rng),
      'scene': scene,
    }


class Batches:
  """Resumable iterator over batches of a grain data set.

  Its state also names the number of shards, so that a run resumed while its
  cache has grown sees the same data.
  """

  def __init__(self, iterator: Any, extra: Mapping[str, Any]):
    self._iterator, self._extra = iterator, dict(extra)

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return next(self._iterator)

  def get_state(self) -> dict[str, Any]:
    return {**self._extra, 'position': self._iterator.get_state()}


def make_batches(
  sources: Sequence[Any],
  batch: int,
  seed: int,
  state: Mapping[str, Any] | None = None,
  transform: Transform | None = None,
  worker_count: int = 0,
  shards: list[int] | None = None,
) -> Batches:
  """Endless shuffled batches.

  Args:
    sources: random-access sequences, read as one.
    batch: elements per batch, over all hosts.
    seed: of the order and of the transform's randomness.
    state: where to go on, from `get_state`; None = at the beginning.
    transform: (element, generator) -> arrays; random, yet the same for the
      same place in the order.
    worker_count: processes that prepare batches; 0 = a thread here.
    shards: how many of the sources are of each folder; None = all of one.

  Raises:
    UserError: the batch is larger than the data or does not divide among
      the hosts.
  """
  import grain
  import jax

  hosts, host = jax.process_count(), jax.process_index()
  total = sum(len(source) for source in sources)
  if batch < 1 or batch % hosts:
    raise UserError(f'a batch of {batch} cannot be split over {hosts} hosts')
  if batch > total:
    raise UserError(f'a batch of {batch} is more than the {total} clips')
  data = grain.MapDataset.concatenate(
    [grain.MapDataset.source(source) for source in sources]
  )
  data = data.seed(seed).shuffle()[host::hosts].repeat()
  if transform is not None:
    data = data.random_map(transform)
  data = data.batch(batch // hosts)
  # One thread reads ahead; more would only fight over the interpreter.
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  stream = data.to_iter_dataset(options)
  if worker_count:
    stream = stream.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=worker_count)
    )
  iterator = iter(stream)
  if state is not None:
    iterator.set_state(state['position'])
  counts = shards or [len(sources)]
  return Batches(iterator, {'shards': counts if counts[1:] else counts[0]})


def latent_batches(
  folder: str,
  tokenizer: Tokenizer,
  *,
  batch: int,
  frames: int,
  text_drop: float,
  seed: int,
  gap: float = 0.0,
  chunk: int = 3,
  state: Mapping[str, Any] | None = None,
  worker_count: int = 0,
) -> Batches:
  """Batches for text-to-video training from cached latents.

  Args:
    folder: of the cache (see `data.latents`); several, joined by commas, are
      read as one.
    tokenizer: turns a caption into ids.
    batch: clips per batch.
    frames: latent frames F, the first ones of each clip: only there does the
      first latent stand for a single frame.
    text_drop: probability that a clip's caption is replaced by the empty
      prompt (for classifier-free guidance).
    seed: of order, captions, dropping and gaps.
    gap: probability that a clip skips some latents after its first chunk,
      which is what a sink and a rolling window remember of a long stream.
    chunk: latent frames before the gap.
    state: where to go on.
    worker_count: see `make_batches`.

  Returns:
    Batches of 'latents' float16 `[B, F, H, W, C]`, 'ids' int32 and 'mask'
    bool `[B, text_len]`, and 'weight' float32 `[B, F]`: 0 for the chunk
    right after a gap, whose beginning nothing it sees could tell. Clips of
    scripts are told as a re-cache does: the first chunk and some later ones,
    all with the caption of the last, and chunks that it does not describe
    have weight 0.
  """
  from jaxvid.data import latents

  folders = folder.split(',')
  counts = _counts(state, len(folders))
  groups = [
    latents.open_shards(name, count)
    for name, count in zip(folders, counts, strict=True)
  ]
  available = min(len(shards[0][0]['latents']) for shards in groups)
  _check_frames(folder, frames, available)

  def transform(example, rng):
    texts, clip = latents.read_captions(example), example['latents']
    if latents.is_script(example):
      text, clip, weight = _told_anew(texts, clip, frames, chunk, rng)
    else:
      skip, text = 0, _choose(texts, rng)
      if rng.random() < gap:
        skip = int(rng.integers(available - frames + 1))
      clip, weight = _cut(clip, frames, chunk, skip)
    ids, mask = tokenizer(['' if rng.random() < text_drop else text])
    return {'latents': clip, 'ids': ids[0], 'mask': mask[0], 'weight': weight}

  return make_batches(
    list(itertools.chain.from_iterable(groups)),
    batch,
    seed,
    state,
    transform,
    worker_count,
    [len(shards) for shards in groups],
  )


def trajectory_batches(
  folder: str,
  tokenizer: Tokenizer,
  *,
  levels: Sequence[float],
  batch: int,
  frames: int,
  seed: int,
  state: Mapping[str, Any] | None = None,
  worker_count: int = 0,
) -> Batches:
  """Batches for ODE regression from cached trajectories.

  Args:
    folder: of the cache (see `data.trajectories`).
    tokenizer: turns a prompt into ids.
    levels: the K time steps wanted, among those that are stored.
    batch: clips per batch.
    frames: latent frames F, the first ones of each clip.
    seed: of the order.
    state: where to go on.
    worker_count: see `make_batches`.

  Returns:
    Batches of 'trajectory' float16 `[B, K + 1, F, H, W, C]` (the samples at
    the levels in the order given, then the clean end), 'ids' int32 and 'mask'
    bool `[B, text_len]`.

  Raises:
    UserError: no trajectories there, or not at these levels.
  """
  from jaxvid.data import trajectories

  rows = trajectories.find_levels(folder, levels)
  sources = trajectories.open_shards(folder, *_counts(state, 1))
  _check_frames(folder, frames, sources[0][0]['trajectory'].shape[1])

  def transform(example, rng):
    del rng
    ids, mask = tokenizer([example['prompt'].decode()])
    kept = example['trajectory'][[*rows, -1], :frames]
    return {'trajectory': kept, 'ids': ids[0], 'mask': mask[0]}

  return make_batches(sources, batch, seed, state, transform, worker_count)


def prompt_batches(
  config: PromptConfig,
  tokenizer: Tokenizer,
  *,
  batch: int,
  seed: int,
  state: Mapping[str, Any] | None = None,
  worker_count: int = 0,
) -> Batches:
  """Batches of prompts alone, for distillation without data.

  Args:
    config: where they come from.
    tokenizer: turns a prompt into ids.
    batch: prompts per batch.
    seed: of order and wording.
    state: where to go on.
    worker_count: see `make_batches`.

  Returns:
    Batches of 'ids' int32 and 'mask' bool `[B, text_len]`.
  """
  sources = prompt_sources.open_prompts(config, *_counts(state, 1))

  def transform(texts, rng):
    ids, mask = tokenizer([_choose(texts, rng)])
    return {'ids': ids[0], 'mask': mask[0]}

  return make_batches(sources, batch, seed, state, transform, worker_count)


def pair_batches(
  config: PromptConfig,
  tokenizer: Tokenizer,
  *,
  batch: int,
  seed: int,
  state: Mapping[str, Any] | None = None,
  worker_count: int = 0,
) -> Batches:
  """Batches of prompts and what follows them; arguments of `prompt_batches`.

  Returns:
    Batches of 'ids' int32 and 'mask' bool `[B, text_len]`, and the same of
    the follow-ups as 'next_ids' and 'next_mask'.
  """

  def transform(texts, rng):
    del rng
    ids, mask = tokenizer(texts)
    return {
      'ids': ids[0],
      'mask': mask[0],
      'next_ids': ids[1],
      'next_mask': mask[1],
    }

  sources = prompt_sources.open_pairs(config)
  return make_batches(sources, batch, seed, state, transform, worker_count)


def _counts(state: Mapping[str, Any] | None, folders: int) -> list[int | None]:
  """Shards of each folder that a run began with; None for a new one."""
  if state is None:
    return [None] * folders
  counts = state['shards']
  counts = counts if isinstance(counts, list) else [counts]
  if len(counts) != folders:
    raise UserError(
      f'the run began with {len(counts)} folders of data, not {folders}'
    )
  return counts


def _choose(texts: Sequence[str], rng: np.random.Generator) -> str:
  return texts[int(rng.integers(len(texts)))]


def _check_frames(folder: str, frames: int, available: int) -> None:
  if frames > available:
    raise UserError(
      f'{folder} holds clips of {available} latent frames, not {frames}'
    )


def _told_anew(
  texts: Sequence[str],
  clip: np.ndarray,
  frames: int,
  chunk: int,
  rng: np.random.Generator,
) -> tuple[str, np.ndarray, np.ndarray]:
  """A script's first chunk and some later ones, told by the last caption."""
  later = frames // chunk - 1
  start = int(rng.integers(1, max(len(texts) - later, 1) + 1))
  clip, weight = _cut(clip, frames, chunk, (start - 1) * chunk)
  said = [texts[0], *texts[start : start + later]]
  for i, text in enumerate(said):
    if text != said[-1]:
      weight[i * chunk : (i + 1) * chunk] = 0
  return said[-1], clip, weight


def _cut(
  clip: np.ndarray, frames: int, chunk: int, skip: int
) -> tuple[np.ndarray, np.ndarray]:
  """The first `frames` after leaving out `skip` behind the first chunk."""
  weight = np.ones(frames, np.float32)
  if skip:
    clip = np.concatenate([clip[:chunk], clip[chunk + skip :]])
    weight[chunk : 2 * chunk] = 0
  return clip[:frames], weight
