"""The working folder: one file per finished piece of work, so none is redone.

  target/settings.json      what everything here was made with
  target/records/KEY.json   what came of one video file
  target/clips/KEY-FRAME.mp4  a kept clip at the data set's size and pace
  target/captions/KEY-FRAME.json  captions that a model wrote for it
  target/review/NAME.jsonl  what an annotator said
  target/clips.jsonl, target/rejected.jsonl  tables for people

Every file appears complete or not at all. A killed job leaves at most hidden
parts, which the next one removes; several processes or machines may work on
different video files of one folder.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxvid.data import files, video
from jaxvid.data.videos import captions as captions_lib
from jaxvid.data.videos import clips, media
from jaxvid.data.videos.captions import Caption
from jaxvid.data.videos.clips import ClipConfig
from jaxvid.errors import UserError

SETTINGS = 'settings.json'
Record = dict[str, Any]
Clip = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """What a worker needs to know.

  Attributes:
    source: folder of the video files.
    target: the working folder.
    captions: file with captions, `captions.read_scripts`; may be empty.
    size: (height, width) of the clips.
    clips: how files become clips.
  """

  source: str
  target: str
  captions: str
  size: tuple[int, int]
  clips: ClipConfig

  def __post_init__(self):
    if min(self.size) < 2:
      raise UserError(f'size must be at least (2, 2), not {self.size}')


def key(name: str) -> str:
  """A file name for the work on a video file, readable and unique."""
  stem = ''.join(c if c.isalnum() else '-' for c in pathlib.Path(name).stem)
  return f'{stem[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}'


def clip_key(clip: Clip) -> str:
  """The same for one of its clips."""
  name, _, frame = clip['id'].rpartition('#')
  return f'{key(name)}-{frame}'


def record_path(job: Job, name: str) -> pathlib.Path:
  return pathlib.Path(job.target) / 'records' / f'{key(name)}.json'


def clip_path(target: str | pathlib.Path, clip: Clip) -> pathlib.Path:
  return pathlib.Path(target) / 'clips' / f'{clip_key(clip)}.mp4'


def prepare(job: Job) -> list[str]:
  """Opens the working folder; returns the names of all video files.

  Raises:
    UserError: no such folder, no video in it, or a target that was made with
      other settings.
  """
  source = pathlib.Path(job.source)
  if not source.is_dir():
    raise UserError(f'{source} is not a folder')
  target = pathlib.Path(job.target)
  found = [path for path in media.find(source) if target not in path.parents]
  if not found:
    names = ', '.join(media.SUFFIXES)
    raise UserError(f'{source} holds no video ({names})')
  settings = dataclasses.asdict(job)
  for name in ('source', 'target', 'captions'):  # They may move.
    del settings[name]
  settings = json.loads(json.dumps(settings))
  known = read_json(target / SETTINGS)
  if known is None:
    files.write_json(target / SETTINGS, settings)
  elif known != settings:
    changed = [k for k in settings if known.get(k) != settings[k]]
    raise UserError(
      f'{target} was made with other settings ({", ".join(changed)}); give '
      'another target or remove it'
    )
  return [path.relative_to(source).as_posix() for path in found]


def read_json(path: pathlib.Path) -> Any:
  """A finished file's value; None if it is not there."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise UserError(f'cannot read {path}: {error}') from error


def is_done(job: Job, name: str) -> bool:
  """Whether a file's record is there and the file has not changed since."""
  record = read_json(record_path(job, name))
  return record is not None and record['state'] == _state(job, name)


def _state(job: Job, name: str) -> list[int]:
  stat = (pathlib.Path(job.source) / name).stat()
  return [stat.st_size, stat.st_mtime_ns]


def process(job: Job, name: str) -> Record:
  """Examines a file and writes its clips, then its record.

  Nothing that a file contains makes this fail: what cannot be used has a
  reason in the record. A full disk does.
  """
  target = pathlib.Path(job.target)
  path = pathlib.Path(job.source) / name
  _remove_old(target, name)
  state = _state(job, name)
  try:
    given = find_captions(all_captions(job.captions), name)
    record = clips.examine(path, name, given, job.clips)
    _encode(job, path, record)
  except MemoryError:
    record = failed(name, 'needs more memory than there is')
  record['state'] = state
  files.write_json(record_path(job, name), record)
  return record


def failed(name: str, detail: str) -> Record:
  """The record of a file that no worker survives."""
  return {'file': name, 'clips': [], 'reason': 'unreadable', 'detail': detail}


def give_up(job: Job, name: str, detail: str) -> Record:
  """Writes such a record."""
  record = failed(name, detail) | {'state': _state(job, name)}
  files.write_json(record_path(job, name), record)
  return record


def _remove_old(target: pathlib.Path, name: str) -> None:
  """What a killed worker, or another file of this name, left."""
  for pattern in ('clips/.{}-*', 'clips/{}-*', 'captions/{}-*'):
    for path in target.glob(pattern.format(key(name))):
      path.unlink(missing_ok=True)


@functools.lru_cache(maxsize=2)
def all_captions(path: str) -> Mapping[str, tuple[Caption, ...]]:
  """File name -> captions, from the file that holds them all."""
  if not path:
    return {}
  return {s.name: s.captions for s in captions_lib.read_scripts(path)}


def find_captions(
  known: Mapping[str, tuple[Caption, ...]], name: str
) -> tuple[Caption, ...]:
  """The captions of a file: by its path, its name, or its name's stem."""
  path = pathlib.PurePosixPath(name)
  for wanted in (name, path.name, str(path.with_suffix('')), path.stem):
    if wanted in known:
      return known[wanted]
  return ()


def _encode(job: Job, path: pathlib.Path, record: Record) -> None:
  """Writes the kept clips of a file, in one pass over it."""
  todo = [clip for clip in record['clips'] if 'reason' not in clip]
  frames = enumerate(_sound(path, job)) if todo else iter(())
  for clip in todo:
    place, count = clip_path(job.target, clip), 0
    with video.writer(place, job.clips.fps) as put:
      for i, frame in frames:
        if i >= clip['start']:
          put(frame[None])
          count += 1
        if i + 1 >= clip['end']:
          break
    if count < clip['end'] - clip['start']:
      place.unlink(missing_ok=True)
      clip |= {'reason': 'damaged', 'detail': f'after {count} frames'}


def _sound(path: pathlib.Path, job: Job) -> Iterator[np.ndarray]:
  """The frames of a file up to the first that cannot be read."""
  frames = video.iter_video(path, *job.size, job.clips.fps)
  with contextlib.suppress(UserError):
    yield from frames


def records(job: Job, names: Iterable[str]) -> Iterator[Record]:
  """The finished records of some files, in order."""
  for name in names:
    record = read_json(record_path(job, name))
    if record is not None:
      yield record


def kept(target: str | pathlib.Path) -> list[Clip]:
  """The clips of all records that passed the filters, in order."""
  paths = sorted((pathlib.Path(target) / 'records').glob('*.json'))
  found = [clip for path in paths for clip in read_json(path)['clips']]
  return [clip for clip in found if 'reason' not in clip]
