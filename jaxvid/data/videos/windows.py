"""Clips of a fixed length from a video data set, for caching latents."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from jaxvid.data import scripts
from jaxvid.data.videos import dataset
from jaxvid.errors import UserError


@dataclasses.dataclass(eq=False)
class Windows:
  """Windows of F frames that start with a chunk and do not overlap.

  Element i is `{'video': uint8 [F, H, W, 3], 'captions': texts, 'script':
  JSON text}`: what is said, and where it comes from with the captions of all
  its chunks, in frames from its start.

  Attributes:
    source: examples of the data set.
    frames: F.
    places: (example, first frame) of every window.
    chunk: latent frames per caption; 0: the caption of the window's first
      chunk alone.
  """

  source: Any
  frames: int
  places: tuple[tuple[int, int], ...]
  chunk: int = 0

  @classmethod
  def open(
    cls, folder: str | pathlib.Path, part: str, frames: int, chunk: int = 0
  ) -> 'Windows':
    """Finds the windows of one split.

    Raises:
      UserError: no data set there, or no clip that is long enough.
    """
    source = dataset.open_source(folder, part)
    places = [
      (i, start)
      for i in range(len(source))
      for start in _starts(source[i], frames)
    ]
    if not places:
      raise UserError(f'{folder} has no clip of {frames} frames')
    return cls(source, frames, tuple(places), chunk)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    number, start = self.places[index]
    example, video = self._decoded(number)
    chunks = example['chunks']
    inside = [
      {
        'start': max(0, int(a) - start),
        'end': min(int(b) - start, self.frames),
        'caption': text.decode(),
      }
      for a, b, text in zip(
        chunks['start'], chunks['end'], chunks['caption'], strict=True
      )
      if b > start and a < start + self.frames
    ]
    starts = np.zeros(1, int)
    if self.chunk:
      latents = (self.frames + scripts.STRIDE - 1) // scripts.STRIDE
      starts = scripts.chunk_starts(latents, self.chunk)
    facts = {'clip': example['id'].decode(), 'start': start, 'chunks': inside}
    return {
      'video': video[start : start + self.frames],
      'captions': [_said(inside, place) for place in starts],
      'script': json.dumps(facts, ensure_ascii=False),
    }

  @functools.cached_property
  def _decoded(self):
    # Neighbouring windows mostly come from one clip.
    @functools.lru_cache(maxsize=1)
    def decode(number: int) -> tuple[dict[str, Any], np.ndarray]:
      example = self.source[number]
      return example, dataset.read_clip(example['video'])

    return decode

  def digest(self) -> str:
    """Tells these windows from those of other clips or captions."""
    result = hashlib.sha256()
    for example in self.source:
      chunks = example['chunks']
      for part in (example['id'], example['video'], *chunks['caption']):
        result.update(len(part).to_bytes(8) + part)
      result.update(np.asarray(chunks['start']).tobytes())
    return result.hexdigest()[:16]


def _starts(example: dict[str, Any], frames: int) -> list[int]:
  """First frames of an example's windows."""
  starts: list[int] = []
  for start in map(int, example['chunks']['start']):
    free = not starts or start >= starts[-1] + frames
    if free and start + frames <= int(example['frames']):
      starts.append(start)
  return starts


def _said(chunks: list[dict[str, Any]], frame: int) -> str:
  """The caption of the chunk that shows a frame; no line ends in it."""
  said = next(c for c in reversed(chunks) if c['start'] <= frame)
  return ' '.join(said['caption'].split())
