"""Caches latents: of scenes of the shapes world, or of your own videos."""

import dataclasses
import json
import pathlib
import sys
import time
import zlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxvid.data.loaders import RenderedShapes
from jaxvid.data.scripts import RenderedScripts
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.errors import UserError

if TYPE_CHECKING:
  from jaxvid.data.videos import windows


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    vae: weights of the VAE: a shipped folder, a training run, or a model
      that holds one.
    target: folder of the cache; made if missing, continued if not.
    videos: data set of configs/videos/folder.py; empty: scenes are rendered.
    split: of that data set.
    per_chunk: of videos, one caption per `chunk` as in scripts, not one for
      the whole clip.
    clips: clips wanted in all; of videos at most as many as there are.
    shard: clips per shard; a killed job loses at most one shard.
    batch: clips encoded at once.
    frames: frames per clip, 1 + 4k.
    styles: captions per scene.
    seed: of the scenes.
    script: 'follow_up' or 'returning': clips of several shots, with one
      caption per chunk; empty: one scene each.
    shots: of a script.
    chunk: latent frames per caption of a script or of `per_chunk`.
    terse: captions of 'returning' scripts leave open what to return to.
    scenes: what scenes may show, and the size of the picture.
  """

  vae: str
  target: str
  videos: str = ''
  split: str = 'train'
  per_chunk: bool = False
  clips: int = 8192
  shard: int = 512
  batch: int = 8
  frames: int = 25
  styles: int = 8
  seed: int = 0
  script: Literal['', 'follow_up', 'returning'] = ''
  shots: int = 3
  chunk: int = 3
  terse: bool = False
  scenes: SceneSettings = dataclasses.field(default_factory=SceneSettings)

  def __post_init__(self):
    if self.shard < 1 or self.batch < 1 or self.shard % self.batch:
      raise UserError(
        f'shard must be a multiple of batch, not {self.shard} and {self.batch}'
      )
    if self.terse and self.script != 'returning':
      raise UserError('terse is for scripts that return: script=returning')


def run(config: Config) -> None:
  """Writes the shards that are missing and says how it goes."""
  import jax

  from jaxvid.data import latents, shards
  from jaxvid.models import vae

  model, params = _open_vae(config.vae)

  @jax.jit
  def encode(params, video):
    video = video.astype(np.float32) / 127.5 - 1.0
    return vae.encode(model, params, video)[0].astype(np.float16)

  folder = pathlib.Path(config.target)
  source = make_source(config)
  settings = _settings(config, source)
  settings['weights'] = fingerprint(params)
  shards.prepare(folder, settings)
  size = source[0]['video'].shape
  video = jax.ShapeDtypeStruct((config.batch, *size), np.uint8)
  shape = jax.eval_shape(encode, params, video).shape[1:]
  total = -(-min(config.clips, len(source)) // config.shard)
  for index in range(total):
    began = time.monotonic()
    span = range(
      index * config.shard, min((index + 1) * config.shard, len(source))
    )
    examples = _encoded(source, lambda x: encode(params, x), span, config.batch)
    if latents.write_shard(folder, index, shape, examples):
      rate = len(span) / (time.monotonic() - began)
      print(
        f'shard {index + 1}/{total}  {rate:.1f} clips/s',
        file=sys.stderr,
        flush=True,
      )


def _open_vae(weights: str):
  """Its config and parameters."""
  from jaxvid.models import vae
  from jaxvid.tasks import bundle
  from jaxvid.training import checkpoint

  try:
    head, params = checkpoint.load_params(weights, dtype='float32')
  except UserError:
    found = bundle.open_bundle(weights)
    return found.configure(found.need('vae')), found.place('vae', 'float32')
  if 'vae' not in head:
    raise UserError(f'{weights} holds no VAE')
  config = {key: _tuples(value) for key, value in head['vae'].items()}
  return vae.VAEConfig(**config), params


def make_source(
  config: Config,
) -> 'RenderedShapes | RenderedScripts | windows.Windows':
  """Clips to be cached, by number."""
  if config.videos:
    from jaxvid.data.videos import windows

    chunk = config.chunk if config.per_chunk else 0
    return windows.Windows.open(
      config.videos, config.split, config.frames, chunk
    )
  if not config.script:
    return RenderedShapes(
      config.scenes, config.frames, config.seed, config.styles
    )
  return RenderedScripts(
    config.scenes,
    config.frames,
    config.script,
    config.shots,
    config.chunk,
    config.seed,
    config.terse,
  )


def _settings(config: Config, source) -> dict:
  """What decides the content of the cache, the weights apart."""
  settings = dataclasses.asdict(config)
  settings['scenes'] = config.scenes.content(bool(config.script))
  # The first four change no latent.
  unused = {'vae', 'target', 'clips', 'batch', 'videos', 'split', 'per_chunk'}
  if not config.script:
    unused |= {'script', 'shots', 'chunk'}
  if not config.terse:  # As caches were before there was a choice.
    unused |= {'terse'}
  if config.videos:
    unused |= {'styles', 'seed', 'scenes'}
    settings['content'] = source.digest()
  return {name: settings[name] for name in settings if name not in unused}


def _encoded(source, encode, span: range, batch: int):
  """Yields the examples of one shard."""
  for start in span[::batch]:
    clips = [source[i] for i in range(start, min(start + batch, span.stop))]
    # The last batch is filled up, so that all have one shape.
    filled = clips + clips[-1:] * (batch - len(clips))
    encoded = np.asarray(encode(np.stack([clip['video'] for clip in filled])))
    for clip, latent in zip(clips, encoded, strict=False):
      if 'script' in clip:
        facts = clip['script']
      else:
        facts = json.dumps(dataclasses.asdict(clip['scene']))
      yield {'latents': latent, 'captions': clip['captions'], 'scene': facts}


def fingerprint(params) -> str:
  """Tells the weights of one model from those of another."""
  import jax

  digest = 0
  for leaf in jax.tree.leaves(params):
    digest = zlib.crc32(np.asarray(leaf).tobytes(), digest)
  return f'{digest:08x}'


def _tuples(value):
  """JSON knows lists only."""
  return tuple(value) if isinstance(value, list) else value
