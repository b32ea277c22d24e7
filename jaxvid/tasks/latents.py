"""Renders scenes of the shapes world and caches their latents."""

import dataclasses
import json
import pathlib
import sys
import time
import zlib
from typing import Literal

import numpy as np

from jaxvid.data.loaders import RenderedShapes
from jaxvid.data.scripts import RenderedScripts
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    vae: weights of the VAE, a shipped folder or a training run.
    target: folder of the cache; made if missing, continued if not.
    clips: clips wanted in all.
    shard: clips per shard; a killed job loses at most one shard.
    batch: clips encoded at once.
    frames: frames per clip, 1 + 4k.
    styles: captions per clip.
    seed: of the scenes.
    script: 'follow_up' or 'returning': clips of several shots, with one
      caption per chunk; empty: one scene each.
    shots: of a script.
    chunk: latent frames per caption of a script.
    scenes: what scenes may show, and the size of the picture.
  """

  vae: str
  target: str
  clips: int = 8192
  shard: int = 512
  batch: int = 8
  frames: int = 25
  styles: int = 8
  seed: int = 0
  script: Literal['', 'follow_up', 'returning'] = ''
  shots: int = 3
  chunk: int = 3
  scenes: SceneSettings = dataclasses.field(default_factory=SceneSettings)

  def __post_init__(self):
    if self.shard < 1 or self.batch < 1 or self.shard % self.batch:
      raise UserError(
        f'shard must be a multiple of batch, not {self.shard} and {self.batch}'
      )


def run(config: Config) -> None:
  """Writes the shards that are missing and says how it goes."""
  import jax

  from jaxvid.data import latents, shards
  from jaxvid.models import vae
  from jaxvid.training import checkpoint

  head, params = checkpoint.load_params(config.vae, dtype='float32')
  if 'vae' not in head:
    raise UserError(f'{config.vae} holds no VAE')
  model = vae.VAEConfig(**{k: _tuples(v) for k, v in head['vae'].items()})

  @jax.jit
  def encode(params, video):
    video = video.astype(np.float32) / 127.5 - 1.0
    return vae.encode(model, params, video)[0].astype(np.float16)

  folder = pathlib.Path(config.target)
  settings = dataclasses.asdict(config)
  for name in ('vae', 'target', 'clips', 'batch'):  # They change no latent.
    del settings[name]
  if not config.script:  # Nor do these.
    for name in ('script', 'shots', 'chunk'):
      del settings[name]
  settings['weights'] = fingerprint(params)
  shards.prepare(folder, settings)
  size = config.scenes.height, config.scenes.width
  video = jax.ShapeDtypeStruct(
    (config.batch, config.frames, *size, 3), np.uint8
  )
  shape = jax.eval_shape(encode, params, video).shape[1:]
  source = make_source(config)
  total = -(-config.clips // config.shard)
  for index in range(total):
    began = time.monotonic()
    examples = _encoded(source, lambda x: encode(params, x), index, config)
    if latents.write_shard(folder, index, shape, examples):
      rate = config.shard / (time.monotonic() - began)
      print(
        f'shard {index + 1}/{total}  {rate:.1f} clips/s',
        file=sys.stderr,
        flush=True,
      )


def make_source(config: Config) -> RenderedShapes | RenderedScripts:
  """Clips to be cached, by number."""
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
  )


def _encoded(source, encode, shard: int, config: Config):
  """Yields the examples of one shard."""
  first = shard * config.shard
  for start in range(first, first + config.shard, config.batch):
    clips = [source[start + i] for i in range(config.batch)]
    encoded = np.asarray(encode(np.stack([clip['video'] for clip in clips])))
    for clip, latent in zip(clips, encoded, strict=True):
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
