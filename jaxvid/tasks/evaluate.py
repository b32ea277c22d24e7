"""Measures a shapes-world model: generates clips, probes them, reports.

Every figure comes with its 95 % confidence interval and the settings that
produced it. The model is a bundle, or what a training left: its run, or the
weights that it wrote.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from jaxvid.data import files
from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import render
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.captions import Spec
from jaxvid.errors import UserError
from jaxvid.evaluation import findings, workers
from jaxvid.evaluation.generated import Tally
from jaxvid.tasks import generate, scripted
from jaxvid.tasks.bundle import Bundle, open_weights
from jaxvid.tasks.progress import progress, say
from jaxvid.tasks.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class Parts:
  """What goes with `stream.weights` that are a run or a folder of weights.

  Attributes:
    tokenizer: its folder; empty: `stream.weights` is a bundle.
    text: run or folder of the text encoder; empty: the transformer's own.
    decoder: run or folder of the autoencoder, of the kind `stream.decoder`.
    size: (height, width) of the videos in pixels.
  """

  tokenizer: str = ''
  text: str = ''
  decoder: str = ''
  size: tuple[int, int] = (64, 64)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    stream: the model and how it is sampled; prompt and output are not used.
    parts: of a model that is no bundle yet.
    clips: number of captions, one video each.
    objects: objects per caption, 1 to 3. Captions of one object use
      combinations of shape, colour and motion that training never showed.
    script: videos of several shots instead, measured by their last one and,
      with the first one, for drift: 'follow_up' changes one thing from shot
      to shot, 'returning' comes back to its first scene.
    shots: of a script.
    terse: the caption of the scene that a script returns to leaves size and
      background open; that of the other says both.
    opening: chunks of the true video that a script's video begins with, so
      that it shows what the caption leaves open.
    batch: videos made side by side.
    seed: of captions and noise.
    window: seconds per window when a video is long enough for two.
    latents: latent frames per point of the curves by chunk.
    probe_every: the probe reads every n-th chunk by itself; 0 = none.
    workers: processes that probe; -1: one less than there are cores.
    details: write every value of every clip too, to compare models by.
    output: JSON file; empty prints only.
  """

  stream: generate.Config = dataclasses.field(default_factory=generate.Config)
  parts: Parts = dataclasses.field(default_factory=Parts)
  clips: int = 1024
  objects: int = 1
  script: Literal['', 'follow_up', 'returning'] = ''
  shots: int = 3
  terse: bool = False
  opening: int = 0
  batch: int = 32
  seed: int = 0
  window: int = 5
  latents: int = 3
  probe_every: int = 1
  workers: int = -1
  details: bool = False
  output: str = ''


def run(config: Config) -> None:
  """Generates, probes and prints a table; writes JSON if asked to."""
  for name in ('clips', 'batch', 'window', 'latents'):
    if getattr(config, name) < 1:
      raise UserError(f'{name} must be at least 1, not {getattr(config, name)}')
  for name, least in (('probe_every', 0), ('workers', -1), ('opening', 0)):
    if getattr(config, name) < least:
      value = getattr(config, name)
      raise UserError(f'{name} must be >= {least}, not {value}')
  if (config.terse or config.opening) and not config.script:
    raise UserError('terse and opening are for scripts: script=returning')
  if config.output:
    files.check_writable(pathlib.Path(config.output))
  said = asked(config)
  sampler = Sampler.load(config.stream, open_parts(config))
  began = time.perf_counter()
  long_enough = config.stream.seconds >= 2 * config.window
  long_enough = long_enough and not config.script
  what = findings.What(
    config.window if long_enough else 0, config.latents, config.probe_every
  )
  found = findings.Findings.none(what)
  reader = findings.read_script if config.script else findings.read
  reads = workers.ordered(
    functools.partial(reader, what=what),
    videos(config, sampler, said),
    processes(config),
  )
  with progress(len(said), 'clips') as update:
    for i, more in enumerate(reads):
      found.merge(more)
      update(i + 1, '')
  tally, measures = found.tally, found.measures
  report = {
    'settings': dataclasses.asdict(config),
    'clips': len(said),
    'seconds_taken': round(time.perf_counter() - began, 1),
    **sampler.calls(),
    'accuracy': _json(tally.accuracy()),
    'pace_px_per_frame': _json(tally.pace()),
    'motions': {name: dict(seen) for name, seen in tally.motions.items()},
    'measures': _json(measures.summary()),
    'by_chunk': {
      'latents': config.latents,
      'curves': {
        name: [point._asdict() for point in curve]
        for name, curve in measures.by_chunk().items()
      },
    },
  }
  if long_enough:
    report['over_time'] = found.timeline.summary()
  if config.details:
    report['values'] = measures.values()
  show(tally, report)
  if config.output:
    files.write_json(config.output, report)
    say(f'report: {config.output}')


def asked(config: Config) -> list[Any]:
  """What is asked for: `scripted.Story`, or (meaning, caption) pairs."""
  if not config.script:
    return captioned(config.objects, config.clips, config.seed)
  return scripted.stories(
    config.stream,
    config.script,
    config.shots,
    config.objects,
    config.clips,
    config.seed,
    config.terse,
  )


def videos(
  config: Config, sampler: Sampler, said: list[Any]
) -> Iterator[tuple[np.ndarray, Any]]:
  """Every video with what it was to show."""
  if config.script:
    clips = scripted.clips(
      sampler, said, config.batch, config.seed, config.opening
    )
    return zip(clips, (story.shots for story in said), strict=True)
  pictures = None
  if sampler.settings.inputs.starts:
    drawn = described_scenes(config.objects, config.clips, config.seed)
    pictures = first_pictures([scene for scene, _ in drawn], sampler.size)
  texts = [text for _, text in said]
  clips = sampler.clips(texts, config.batch, config.seed, pictures)
  return zip(clips, (spec for spec, _ in said), strict=True)


def processes(config: Config) -> int:
  """How many processes probe."""
  return workers.default_count() if config.workers < 0 else config.workers


def _json(intervals) -> dict[str, Any]:
  return {name: value._asdict() for name, value in intervals.items()}


def open_parts(config: Config) -> Bundle | None:
  """The model that `parts` describe; None where a bundle is named."""
  parts, stream = config.parts, config.stream
  if not parts.tokenizer:
    return None
  others = {'text': parts.text, stream.decoder: parts.decoder}
  return open_weights(
    stream.weights,
    parts.tokenizer,
    parts.size,
    {kind: place for kind, place in others.items() if place},
  )


def captioned(objects: int, count: int, seed: int) -> list[tuple[Spec, str]]:
  """What is asked for: (meaning, caption) pairs, different from training's."""
  return [
    (captions_lib.parse(text), text)
    for _, text in described_scenes(objects, count, seed)
  ]


def first_pictures(
  scenes: Sequence[scene_lib.Scene], size: tuple[int, int]
) -> Iterator[np.ndarray]:
  """What models that start from a picture are given: uint8 `[H, W, 3]`."""
  return (render.render(scene, 1, *size)[0] for scene in scenes)


def described_scenes(
  objects: int, count: int, seed: int
) -> list[tuple[scene_lib.Scene, str]]:
  """The same captions with the scenes that they describe."""
  if objects not in (1, 2, 3):
    raise UserError(f'objects must be 1, 2 or 3, not {objects}')
  if objects == 1:
    pairs = captions_lib.heldout_scenes(count, seed)
  else:
    settings = scene_lib.SceneSettings(
      counts=tuple(float(n + 1 == objects) for n in range(objects)),
      pan_probability=0.0,
    )
    rng = np.random.default_rng((seed, objects))
    scenes = [scene_lib.sample_scene(rng, settings) for _ in range(count)]
    pairs = [
      (scene, captions_lib.caption(scene, int(rng.integers(2**31))))
      for scene in scenes
    ]
  return [pair for pair in pairs if captions_lib.parse(pair[1]) is not None]


def show(tally: Tally, report: dict[str, Any]) -> None:
  """The report as a table on standard output."""
  print(f'{report["clips"]} clips in {report["seconds_taken"]} s')
  for name, value in tally.accuracy().items():
    print(f'  {name:8s} {100 * value.value:6.2f} %', end='')
    print(f'  [{100 * value.low:.2f}, {100 * value.high:.2f}]  n={value.count}')
  for name, value in tally.pace().items():
    print(f'  {name:8s} {value.value:6.3f} px/frame  n={value.count}')
  for name, seen in sorted(tally.motions.items()):
    texts = (f'{other} {count}' for other, count in seen.most_common())
    print(f'  {name:8s} read as ' + ', '.join(texts))
  for i, window in enumerate(report.get('over_time', {}).get('accuracy', ())):
    texts = (f'{name} {100 * value:.1f}' for name, value in window.items())
    print(f'  window {i}: ' + ', '.join(texts))
