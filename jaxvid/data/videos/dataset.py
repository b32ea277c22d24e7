"""The data set of kept clips: TFDS with array_record, no TensorFlow.

An example is one clip: its mp4 file as bytes at the data set's size and pace,
and a caption per chunk. `read_clip` turns it into frames.

This module imports tensorflow_datasets; import it only where it is used.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxvid.data import shards, video
from jaxvid.data.videos import work

VERSION = '1.0.0'
SPLITS = ('train', 'validation')
MARK = 'content.json'  # beside the data set: a digest of what it holds


@dataclasses.dataclass(eq=False)
class VideosConfig(tfds.core.BuilderConfig):
  """A name for clips.

  Attributes:
    target: the working folder.
    splits: split -> its clips with their final captions.
    beam: write through Apache Beam.
  """

  target: str = ''
  splits: Mapping[str, Sequence[work.Clip]] = dataclasses.field(
    default_factory=dict
  )
  beam: bool = False


class Videos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Long video clips with a caption for every chunk."""

  VERSION = tfds.core.Version(VERSION)

  def _info(self) -> tfds.core.DatasetInfo:
    text, number = tfds.features.Text, np.float32
    chunks = {'start': np.int32, 'end': np.int32, 'caption': text()}
    features = {
      'id': text(),
      'video': text(),  # An mp4's bytes.
      'frames': np.int32,
      'source': text(),
      'start': np.int32,
      'motion': number,
      'aesthetic': number,
      'chunks': tfds.features.Sequence(chunks),
    }
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), description=self.__doc__
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    return {
      name: self._generate_examples(found)
      for name, found in config.splits.items()
      if found
    }

  def _generate_examples(self, clips: Sequence[work.Clip]) -> Any:
    target = self.builder_config.target
    if not self.builder_config.beam:
      return examples(target, clips)
    import apache_beam as beam  # pyright: ignore[reportMissingImports]

    # The bytes are read where they are written.
    return beam.Create([(target, clip) for clip in clips]) | beam.MapTuple(
      example
    )


def example(target: str, clip: work.Clip) -> tuple[str, dict[str, Any]]:
  """(key, example) of one clip; chunks count from its first frame."""
  name, _, start = clip['id'].rpartition('#')
  rows = zip(clip['chunks'], clip['captions'], strict=True)
  return clip['id'], {
    'id': clip['id'],
    'video': work.clip_path(target, clip).read_bytes(),
    'frames': clip['end'] - clip['start'],
    'source': name,
    'start': int(start),
    'motion': clip['motion'],
    'aesthetic': clip['aesthetic'],
    'chunks': [
      {'start': a - clip['start'], 'end': b - clip['start'], 'caption': text}
      for (a, b), text in rows
    ],
  }


def examples(
  target: str, clips: Sequence[work.Clip]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """`example` of every clip."""
  for clip in clips:
    yield example(target, clip)


def split(
  clips: Sequence[work.Clip], validation: float, seed: int
) -> dict[str, list[work.Clip]]:
  """Training and validation, by file: one file's clips stay together."""

  def held_out(clip: work.Clip) -> bool:
    name = clip['id'].rpartition('#')[0]
    digest = hashlib.sha256(f'{seed}:{name}'.encode()).digest()
    return int.from_bytes(digest[:8]) < validation * 2**64

  return {
    'train': [clip for clip in clips if not held_out(clip)],
    'validation': [clip for clip in clips if held_out(clip)],
  }


def build(
  target: str,
  name: str,
  splits: Mapping[str, Sequence[work.Clip]],
  beam_options: Sequence[str] | None = None,
) -> tuple[pathlib.Path, bool]:
  """Writes the data set `target/videos/<name>/1.0.0` unless it is there.

  One with other clips or captions takes the place of an older one only when
  it is complete.

  Args:
    target: the working folder.
    name: of the data set.
    splits: split -> clips.
    beam_options: flags of the Beam pipeline that writes; none: no Beam.

  Returns:
    its folder, and whether it was written now.
  """
  folder = pathlib.Path(target)
  place = folder / 'videos' / name / VERSION
  mark = {'digest': _digest(splits)}
  if work.read_json(place / MARK) == mark:
    return place, False
  part = folder / '.building'
  shutil.rmtree(part, ignore_errors=True)
  config = VideosConfig(
    name=name, target=target, splits=splits, beam=beam_options is not None
  )
  with shards.quiet():
    builder = Videos(data_dir=part, config=config, file_format='array_record')
    builder.download_and_prepare(
      download_dir=part / 'downloads',
      download_config=_beam(beam_options) if beam_options is not None else None,
    )
  made = part / 'videos' / name / VERSION
  (made / MARK).write_text(json.dumps(mark) + '\n')
  place.parent.mkdir(parents=True, exist_ok=True)
  if place.exists():
    place.rename(part / 'old')
  made.rename(place)
  shutil.rmtree(part, ignore_errors=True)
  return place, True


def _beam(options: Sequence[str]) -> Any:
  from apache_beam.options import (  # pyright: ignore[reportMissingImports]
    pipeline_options,
  )

  return tfds.download.DownloadConfig(
    beam_options=pipeline_options.PipelineOptions(list(options))
  )


def _digest(splits: Mapping[str, Sequence[work.Clip]]) -> str:
  value = {name: list(found) for name, found in splits.items()}
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def open_source(folder: str | pathlib.Path, part: str = 'train') -> Any:
  """Random access to the examples of one split.

  Args:
    folder: of the data set (that holds dataset_info.json).
    part: 'train' or 'validation'.

  Raises:
    UserError: no such data set or split.
  """
  return shards.open_split(folder, part)


def read_clip(data: bytes) -> np.ndarray:
  """The frames of an example's 'video', uint8 `[F, H, W, 3]`."""
  return np.stack(list(video.native_frames(io.BytesIO(data))))
