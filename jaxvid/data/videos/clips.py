"""Examines one video file: shots, clips, filters, chunks, captions.

A shot is what lies between two cuts; a long one is divided into clips. Every
clip is kept, or rejected with a reason; a file that yields none has a reason
of its own. Positions are frames at the data set's pace.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxvid.data import flow, looks, plugins
from jaxvid.data.videos import captions as captions_lib
from jaxvid.data.videos import media, scenes
from jaxvid.data.videos.captions import Caption
from jaxvid.data.videos.scenes import SceneConfig
from jaxvid.errors import UserError

SAMPLES = 2  # pictures per second for motion and aesthetics (BlockVid A.6)
_FLOW_SIDE = 64
_BATCH = 16
# A decoder that failed may have made up the pictures just before.
_DOUBTFUL = 1.0  # seconds
# Share of a caption, or of the chunk if that is shorter, that both have.
_ENOUGH = 0.25


@dataclasses.dataclass(frozen=True)
class FilterConfig:
  """Which clips are kept.

  Attributes:
    min_seconds: shorter shots are rejected.
    max_seconds: longer shots become several clips.
    min_motion: least mean flow between pictures half a second apart, as a
      share of the picture's short side; rejects what stands still.
    max_motion: the most.
    min_aesthetic: least mean aesthetic score.
    min_side: least short side of the file in pixels.
    motion: `light` or `module:function` of two pictures uint8 `[H, W, 3]`.
    aesthetic: `light` or `module:function` of a list of pictures, a score
      each.
    side: short side of the pictures that these two get.
  """

  min_seconds: float = 5.0
  max_seconds: float = 60.0
  min_motion: float = 0.004
  max_motion: float = 1.0
  min_aesthetic: float = 0.2
  min_side: int = 0
  motion: str = 'light'
  aesthetic: str = 'light'
  side: int = 128

  def __post_init__(self):
    if not 0 < self.min_seconds <= self.max_seconds:
      raise UserError(
        'min_seconds must be > 0 and at most max_seconds, not '
        f'{self.min_seconds:g} and {self.max_seconds:g}'
      )
    if self.side < 16:
      raise UserError(f'side must be at least 16, not {self.side}')


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """How a file becomes clips.

  Attributes:
    fps: frames per second of the data set.
    chunk: frames per chunk, each with a caption of its own; 1 + 4k. Wan2.1
      takes up to 81 at once.
    scenes: what is a cut.
    filter: which clips are kept.
  """

  fps: int = 16
  chunk: int = 81
  scenes: SceneConfig = dataclasses.field(default_factory=SceneConfig)
  filter: FilterConfig = dataclasses.field(default_factory=FilterConfig)

  def __post_init__(self):
    if self.fps < 1 or self.chunk < 1:
      raise UserError(
        f'fps and chunk must be at least 1, not {self.fps} and {self.chunk}'
      )


def light_motion(before: np.ndarray, after: np.ndarray) -> float:
  """Mean flow from one picture to the next, as a share of the short side."""
  one, two = (
    flow.shrink(flow.luma(picture), _FLOW_SIDE) for picture in (before, after)
  )
  return float(flow.magnitude(one, two).mean()) / min(one.shape)


def light_aesthetic(pictures: Sequence[np.ndarray]) -> list[float]:
  """`looks.appeal` of each picture."""
  return [float(looks.appeal(picture[None])[0]) for picture in pictures]


@functools.lru_cache(maxsize=4)
def _scorers(config: FilterConfig) -> tuple[Callable, Callable]:
  return (
    plugins.load(config.motion, {'light': light_motion}, 'motion'),
    plugins.load(config.aesthetic, {'light': light_aesthetic}, 'aesthetic'),
  )


@dataclasses.dataclass
class Readings:
  """What one pass over a file's pictures found.

  Attributes:
    changes: difference of each frame to the one before, percent.
    light: mean luma of each frame.
    motion: flow of each sample to the one before; the first has none: 0.
    appeal: aesthetic score of each sample.
    every: frames per sample.
  """

  every: int
  changes: list[float] = dataclasses.field(default_factory=list)
  light: list[float] = dataclasses.field(default_factory=list)
  motion: list[float] = dataclasses.field(default_factory=list)
  appeal: list[float] = dataclasses.field(default_factory=list)

  def samples(self, start: int, end: int) -> slice:
    """The samples inside a span of frames."""
    return slice(-(-start // self.every), -(-end // self.every))


def read(pictures: media.Pictures, config: ClipConfig) -> Readings:
  """Looks at every picture once."""
  motion, aesthetic = _scorers(config.filter)
  result = Readings(max(1, round(config.fps / SAMPLES)))
  small = sample = None
  waiting: list[np.ndarray] = []
  for i, picture in enumerate(pictures):
    tiny = looks.strided(picture, scenes.SHORT)
    change = 0.0 if small is None else scenes.difference(small, tiny)
    result.changes.append(change)
    result.light.append(scenes.brightness(tiny))
    small = tiny
    if i % result.every == 0:
      result.motion.append(0.0 if sample is None else motion(sample, picture))
      sample = picture
      waiting.append(picture)
    if len(waiting) == _BATCH:
      result.appeal.extend(map(float, aesthetic(waiting)))
      waiting = []
  if waiting:
    result.appeal.extend(map(float, aesthetic(waiting)))
  return result


def examine(
  path: pathlib.Path,
  name: str,
  given: Sequence[Caption],
  config: ClipConfig,
) -> dict[str, Any]:
  """The record of one file, as JSON keeps it.

  Args:
    path: of the file.
    name: of the file in the data set.
    given: its captions, in seconds of the file; may be empty.
    config: how it becomes clips.

  Returns:
    'file', 'info' (`media.Info`), 'clips' (see `_clip`) and, if there is no
    clip at all, 'reason' and 'detail'; 'note' tells of damage further on.

  Raises:
    UserError: a scorer that does not exist.
  """
  _scorers(config.filter)  # A mistake there is not the file's.
  record: dict[str, Any] = {'file': name, 'clips': []}
  try:
    given = given or captions_lib.sidecar(path)
  except UserError as error:
    return record | {'reason': 'captions', 'detail': str(error)}
  try:
    record['info'] = media.inspect(path)._asdict()
    pictures = media.Pictures(path, config.fps, config.filter.side)
    readings = read(pictures, config)
  except UserError as error:
    return record | {'reason': 'unreadable', 'detail': str(error)}
  record['info'] |= dict(zip(('height', 'width'), pictures.size, strict=True))
  count = len(readings.changes)
  if pictures.damage:
    count = max(0, count - round(_DOUBTFUL * config.fps))
    record['note'] = f'damaged after {count / config.fps:.1f} s'
  if not count:
    detail = record.pop('note', 'it holds no picture')
    return record | {'reason': 'unreadable', 'detail': detail}
  shots = scenes.find(
    readings.changes[:count], readings.light[:count], config.scenes
  )
  if not shots:
    return record | {'reason': 'black', 'detail': 'no picture is bright'}
  for start, end in shots:
    for a, b in divide(start, end, config):
      clip = _clip(a, b, readings, given, config)
      if min(pictures.size) < config.filter.min_side:
        clip |= {'reason': 'small', 'detail': f'{min(pictures.size)} pixels'}
      record['clips'].append({'id': f'{name}#{a:06d}', **clip})
  return record


def divide(
  start: int, end: int, config: ClipConfig
) -> Iterator[tuple[int, int]]:
  """Cuts a long shot into clips of about equal length."""
  longest = int(config.filter.max_seconds * config.fps)
  parts = -(-(end - start) // longest)
  for i in range(parts):
    yield (
      start + (end - start) * i // parts,
      start + (end - start) * (i + 1) // parts,
    )


def _clip(
  start: int,
  end: int,
  readings: Readings,
  given: Sequence[Caption],
  config: ClipConfig,
) -> dict[str, Any]:
  """Start, end, scores, chunks with captions and, if rejected, a reason."""
  settings, inside = config.filter, readings.samples(start, end)
  # The first sample's flow comes from outside.
  motion = readings.motion[inside][1:]
  appeal = readings.appeal[inside]
  parts = chunks(start, end, config)
  said = [
    ' '.join(c.text for c in _by_time(given, a, b, config)) for a, b in parts
  ]
  clip: dict[str, Any] = {
    'start': start,
    'end': parts[-1][1] if parts else end,
    'motion': round(float(np.mean(motion)), 6) if motion else 0.0,
    'aesthetic': round(float(np.mean(appeal)), 6) if appeal else 0.0,
    'chunks': [list(part) for part in parts],
    'captions': said,
  }
  seconds = (end - start) / config.fps
  reason = ''
  if seconds < settings.min_seconds or not parts:
    reason, detail = 'short', f'{seconds:.2f} s'
  elif motion and clip['motion'] < settings.min_motion:
    reason, detail = 'static', f'motion {clip["motion"]:.4f}'
  elif clip['motion'] > settings.max_motion:
    reason, detail = 'restless', f'motion {clip["motion"]:.4f}'
  elif clip['aesthetic'] < settings.min_aesthetic:
    reason, detail = 'plain', f'aesthetic {clip["aesthetic"]:.3f}'
  return clip | ({'reason': reason, 'detail': detail} if reason else {})


def _by_time(given, start: int, end: int, config: ClipConfig) -> list[Caption]:
  """What is said of a chunk: captions that it shares a good part with."""
  begin, stop = start / config.fps, end / config.fps
  found = captions_lib.within(given, begin, stop)
  shared = [min(c.end, stop) - max(c.start, begin) for c in found]
  enough = [
    caption
    for caption, part in zip(found, shared, strict=True)
    if part >= _ENOUGH * min(caption.end - caption.start, stop - begin)
  ]
  return sorted(enough or found[:1], key=lambda caption: caption.start)


def chunks(start: int, end: int, config: ClipConfig) -> list[tuple[int, int]]:
  """Equal chunks; a rest of at least half a chunk is a shorter one."""
  size = config.chunk
  parts = [(a, min(a + size, end)) for a in range(start, end, size)]
  if parts and parts[-1][1] - parts[-1][0] < max(1, size // 2):
    parts.pop()
  return parts
