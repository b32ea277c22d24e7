"""Measures the autoencoders of the shapes world on clips never trained on."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxvid import config as config_lib
from jaxvid.data import files, picture
from jaxvid.data.shapes import captions, render
from jaxvid.data.shapes.captions import Spec
from jaxvid.data.shapes.scene import SceneSettings, sample_scene
from jaxvid.errors import UserError
from jaxvid.evaluation import statistics
from jaxvid.evaluation.generated import Tally, read_clip
from jaxvid.evaluation.workers import default_count, ordered
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
    workers: processes that probe; -1: one less than there are cores.
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
  workers: int = -1
  sheet: str = ''
  output: str = ''

  def __post_init__(self):
    if self.workers < -1:
      raise UserError(f'workers must be >= -1, not {self.workers}')
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
  seen = Seen([], {name: [] for name in decoders}, [])
  # The probe's own errors, on the originals, are the bar.
  tallies: Tallies = {name: {} for name in ('original', *decoders)}
  count = default_count() if config.workers < 0 else config.workers
  clips = outputs(config, encode, decoders, seen)
  with progress(config.clips * len(tallies), 'readings') as update:
    for i, tally in enumerate(ordered(read_clip, clips, count)):
      name, objects = seen.labels[i]
      tallies[name].setdefault(objects, Tally()).merge(tally)
      update(i + 1, '')
  report = summary(config, tallies, seen.psnr)
  show(report)
  if config.sheet:
    picture.write_png(config.sheet, sheet(seen.shown))
    say(f'sheet: {config.sheet}')
  if config.output:
    with files.replacing(pathlib.Path(config.output)) as file:
      file.write((json.dumps(report, indent=1) + '\n').encode())
    say(f'report: {config.output}')


class Seen(NamedTuple):
  """What is kept of the videos.

  Attributes:
    labels: (decoder, number of objects) of each, in order.
    psnr: of every frame `[B, F]`, batch by batch, per decoder.
    shown: clips for the sheet.
  """

  labels: list[tuple[str, int]]
  psnr: dict[str, list[np.ndarray]]
  shown: list[np.ndarray]


# Name of the decoder, number of objects -> verdicts.
Tallies = dict[str, dict[int, Tally]]
Encode = Callable[[np.ndarray], jax.Array]
Decode = Callable[[jax.Array], jax.Array]


def outputs(
  config: Config, encode: Encode, decoders: dict[str, Decode], seen: Seen
) -> Iterator[tuple[np.ndarray, Spec]]:
  """Every clip and its reconstructions with their meaning; notes the rest."""
  for i, (video, specs) in enumerate(batches(config)):
    latents = encode(frames_lib.to_float(video))
    videos = {'original': video}
    for name, decode in decoders.items():
      videos[name] = np.asarray(decode(latents))
      seen.psnr[name].append(psnr(videos[name], video))
    if i < 2:
      rows = zip(*videos.values(), strict=True)
      seen.shown.extend(clip for row in rows for clip in row)
    for name, clips in videos.items():
      for clip, spec in zip(clips, specs, strict=True):
        seen.labels.append((name, len(spec.objects)))
        yield clip, spec


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


def summary(
  config: Config, tallies: Tallies, frames_psnr: dict[str, list[np.ndarray]]
) -> dict:
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
  report['probe'], report['probe_by_objects'] = {}, {}
  for name, parts in tallies.items():
    pooled = Tally()
    for tally in parts.values():
      pooled.merge(tally)
    report['probe'][name] = pooled.report()
    report['probe_by_objects'][name] = {
      str(count): parts[count].report() for count in sorted(parts)
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
    print(f'{name}: probe % {_percent(accuracy)}')
    for count, part in report['probe_by_objects'][name].items():
      print(f'  {count} object(s): {_percent(part)}')


def _percent(accuracy: dict) -> str:
  """`colour 98.0 [95.0, 99.5], ...`."""
  return ', '.join(
    f'{name} {100 * v["value"]:.1f} [{100 * v["low"]:.1f}, '
    f'{100 * v["high"]:.1f}]'
    for name, v in accuracy.items()
  )


def sheet(clips: list[np.ndarray], columns: int = 8) -> np.ndarray:
  """Frames spread over each clip, one row per clip."""
  frames = [
    clip[i] for clip in clips for i in picture.sheet_indices(len(clip), columns)
  ]
  return picture.contact_sheet(frames, columns, upscale=2)
