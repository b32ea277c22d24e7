"""Measures the autoencoders of the shapes world on clips never trained on."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jaxvid import config as config_lib
from jaxvid.data import files, picture
from jaxvid.data.shapes import captions, render
from jaxvid.data.shapes.captions import Spec
from jaxvid.data.shapes.scene import SceneSettings, sample_scene
from jaxvid.errors import UserError
from jaxvid.evaluation import statistics
from jaxvid.evaluation.generated import Tally
from jaxvid.models import tae, vae
from jaxvid.stream import frames as frames_lib
from jaxvid.tasks.progress import progress, say
from jaxvid.training import autoencoder, checkpoint


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    vae: weights of the VAE, a shipped folder or a training run.
    tae: weights of a fast decoder for its latents; '' = none.
    clips: number of clips.
    batch: clips at once.
    frames: frames per clip, 1 + 4k.
    seed: of the scenes.
    scenes: what they may show, and the size of the picture.
    sheet: PNG that shows originals above reconstructions; '' = none.
    output: JSON file; '' prints only.
  """

  vae: str = 'jaxvid/weights/shapes_vae'
  tae: str = ''
  clips: int = 64
  batch: int = 4
  frames: int = 81
  seed: int = 1_000_000
  scenes: SceneSettings = dataclasses.field(default_factory=SceneSettings)
  sheet: str = ''
  output: str = ''

  def __post_init__(self):
    if self.batch < 1 or self.clips < 1 or self.clips % self.batch:
      raise UserError(
        f'clips must be a multiple of batch, not {self.clips} and {self.batch}'
      )


def run(config: Config) -> None:
  """Prints PSNR and what the probe reads, for every decoder."""
  for path in (config.sheet, config.output):
    if path:
      files.check_writable(path)
  encode, decoders = load(config)
  # The probe's own errors, on the originals, are the bar.
  tallies = {name: Tally() for name in ('original', *decoders)}
  frames_psnr: dict[str, list[np.ndarray]] = {name: [] for name in decoders}
  shown: list[np.ndarray] = []
  with progress(config.clips, 'clips') as update:
    for i, (video, specs) in enumerate(batches(config)):
      latents = encode(frames_lib.to_float(video))
      outputs = {'original': video}
      for name, decode in decoders.items():
        outputs[name] = np.asarray(decode(latents))
        frames_psnr[name].append(psnr(outputs[name], video))
      for name, output in outputs.items():
        for clip, spec in zip(output, specs, strict=True):
          tallies[name].add(clip, spec)
      if i < 2:
        shown += [
          clip
          for clips in zip(*outputs.values(), strict=True)
          for clip in clips
        ]
      update((i + 1) * config.batch, '')
  report = summary(config, tallies, frames_psnr)
  show(report)
  if config.sheet:
    picture.write_png(config.sheet, sheet(shown))
    say(f'sheet: {config.sheet}')
  if config.output:
    with files.replacing(pathlib.Path(config.output)) as file:
      file.write((json.dumps(report, indent=1) + '\n').encode())
    say(f'report: {config.output}')


Encode = Callable[[np.ndarray], jax.Array]
Decode = Callable[[jax.Array], jax.Array]


def load(config: Config) -> tuple[Encode, dict[str, Decode]]:
  """The encoder, and the decoders by name: latents to uint8 videos."""
  model, params = autoencoder.load_vae(config.vae)
  encode = jax.jit(lambda video: vae.encode(model, params, video)[0])
  decoders = {'vae': decoder(vae, model, params)}
  if config.tae:
    head, small = checkpoint.load_params(config.tae, dtype='float32')
    if not isinstance(head.get('tae'), dict):
      raise UserError(f'{config.tae} does not describe a tae')
    fast = config_lib.from_dict(tae.TAEConfig, head['tae'])
    decoders['tae'] = decoder(tae, fast, small)
  return encode, decoders


def decoder(module, model, params) -> Decode:
  """One-shot decoding of whole videos to uint8."""

  @jax.jit
  def decode(latents):
    return frames_lib.to_uint8(module.decode(model, params, latents)[0])

  return decode


def batches(config: Config) -> Iterator[tuple[np.ndarray, list[Spec]]]:
  """uint8 videos `[B, F, H, W, 3]` and what they show."""
  rng = np.random.default_rng(config.seed)
  size = config.scenes.height, config.scenes.width
  for _ in range(config.clips // config.batch):
    drawn = [sample_scene(rng, config.scenes) for _ in range(config.batch)]
    video = np.stack([render.render(s, config.frames, *size) for s in drawn])
    yield video, [captions.spec(scene) for scene in drawn]


def psnr(output: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Decibels of every frame `[B, F]` of uint8 videos."""
  error = output.astype(np.float32) - target.astype(np.float32)
  mean = np.square(error).mean(axis=(2, 3, 4))
  return 10 * np.log10(255.0**2 / np.maximum(mean, 1e-3))


def summary(config: Config, tallies, frames_psnr) -> dict:
  """Everything measured, as JSON values."""
  report: dict = {'settings': dataclasses.asdict(config), 'psnr': {}}
  for name, parts in frames_psnr.items():
    values = np.concatenate(parts)
    # Of a clip: from its mean squared error, as is usual.
    clips = -10 * np.log10(np.mean(10 ** (-values / 10), axis=1))
    first, rest = values[:, 0], values[:, 1:]
    report['psnr'][name] = {
      'clip': statistics.mean(clips)._asdict(),
      'worst_clip': float(clips.min()),
      'first_frame': float(first.mean()),
      'last_16_frames': float(rest[:, -16:].mean()) if rest.size else None,
    }
  report['probe'] = {
    name: {k: v._asdict() for k, v in tally.accuracy().items()}
    for name, tally in tallies.items()
  }
  return report


def show(report: dict) -> None:
  """The report as text on standard output."""
  for name, values in report['psnr'].items():
    clip = values['clip']
    print(
      f'{name}: PSNR {clip["value"]:.2f} dB [{clip["low"]:.2f}, '
      f'{clip["high"]:.2f}], worst clip {values["worst_clip"]:.2f}'
    )
  for name, accuracy in report['probe'].items():
    texts = (f'{k} {100 * v["value"]:.1f}' for k, v in accuracy.items())
    print(f'{name}: probe % ' + ', '.join(texts))


def sheet(clips: list[np.ndarray], columns: int = 8) -> np.ndarray:
  """Frames spread over each clip, one row per clip."""
  frames = [
    clip[i] for clip in clips for i in picture.sheet_indices(len(clip), columns)
  ]
  return picture.contact_sheet(frames, columns, upscale=2)
