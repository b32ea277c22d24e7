"""What is in a video file, and its pictures at a steady pace, small."""

import fractions
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxvid.data import video
from jaxvid.errors import UserError

SUFFIXES = ('.mp4', '.webm', '.mkv', '.mov', '.avi', '.m4v')


class Info(NamedTuple):
  """Facts from a file's head; damaged files may lie.

  Attributes:
    codec: of the pictures.
    pixels: their format, e.g. yuv420p10le.
    height: upright, in pixels.
    width: upright, in pixels.
    fps: mean frames per second; 0 if unknown.
    seconds: 0 if unknown.
    audio: whether there is sound.
  """

  codec: str
  pixels: str
  height: int
  width: int
  fps: float
  seconds: float
  audio: bool


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """The video files below a folder, in the order of their names.

  Hidden files and folders are left out.
  """
  return sorted(
    path
    for path in folder.rglob('*')
    if path.suffix.lower() in SUFFIXES
    and path.is_file()
    and not any(p.startswith('.') for p in path.relative_to(folder).parts)
  )


def inspect(path: pathlib.Path) -> Info:
  """Reads a file's head.

  Raises:
    UserError: missing, empty or no video.
  """
  if not path.stat().st_size:
    raise UserError('the file is empty')
  with video.opened(path) as container:
    stream = container.streams.video[0]
    context = stream.codec_context
    seconds = fractions.Fraction(0)
    if stream.duration and stream.time_base:
      seconds = stream.duration * stream.time_base
    elif container.duration:
      seconds = fractions.Fraction(container.duration, 1_000_000)
    return Info(
      codec=context.name,
      pixels=context.pix_fmt or '',
      height=context.height,
      width=context.width,
      fps=float(stream.average_rate or 0),
      seconds=float(seconds),
      audio=bool(container.streams.audio),
    )


class Pictures:
  """The pictures of a file at a steady pace, upright and small.

  Iteration gives uint8 `[h, w, 3]`, the aspect ratio kept. A file that is
  damaged after its first picture just ends there; `damage` then says how.

  Attributes:
    damage: what went wrong, once iteration is over; '' if nothing did.
    size: (height, width) of the file's first picture, upright.
  """

  def __init__(self, path: pathlib.Path, fps: int, short: int):
    self._path, self._fps, self._short = path, fps, short
    self.damage = ''
    self.size = (0, 0)

  def __iter__(self) -> Iterator[np.ndarray]:
    """Raises UserError if there is no picture at all."""
    count = 0
    try:
      for image, repeats in video.resampled(self._path, self._fps, self._small):
        count += repeats
        for _ in range(repeats):
          yield image
    except UserError as error:
      if not count:
        raise
      self.damage = str(error)
    if not count:
      raise UserError('it holds no picture')

  def _small(self, frame) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4
    height, width = frame.height, frame.width
    if not all(self.size):
      self.size = (height, width) if turns % 2 == 0 else (width, height)
      self._target = small_size(height, width, self._short)
    rows, columns = self._target
    image = frame.reformat(columns, rows, 'rgb24', interpolation='AREA')
    return np.ascontiguousarray(np.rot90(image.to_ndarray(), turns))


def small_size(height: int, width: int, short: int) -> tuple[int, int]:
  """(height, width) with this short side, never larger than it was."""
  scale = min(1.0, short / min(height, width))
  return max(2, round(height * scale)), max(2, round(width * scale))
