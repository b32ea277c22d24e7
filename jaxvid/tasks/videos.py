"""From a folder of videos to a data set of long, captioned clips.

Shots, filters and chunks first, each file in a process of its own; then
captions from a vision model for chunks without any; then the data set. Every
finished piece is kept, so a job that is stopped or killed goes on where it
was, and running it again after new files, captions or reviews came adds just
these.
"""

import collections
import concurrent.futures
import dataclasses
import json
import pathlib
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from jaxvid.data import chat, files
from jaxvid.data.videos import describe as describe_lib
from jaxvid.data.videos import pool, review, work
from jaxvid.data.videos.clips import ClipConfig
from jaxvid.data.videos.describe import DescribeConfig
from jaxvid.errors import UserError
from jaxvid.evaluation import workers
from jaxvid.tasks.progress import progress, say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    source: folder of the video files; folders in it count.
    target: the working folder, which also gets the data set.
    captions: .json or .jsonl with captions; also read are files beside the
      videos (`a.txt`, `a.json` or `a.jsonl` for `a.mp4`).
    size: (height, width) of the clips; pictures are scaled to cover it and
      cut in the middle.
    clips: shots, filters and chunks.
    describe: captions from a vision model.
    need_captions: leave out clips that have a chunk without a caption.
    reviews: leave out what 'any' annotator, or 'all' who saw it, found bad;
      'ignore' takes no notice.
    name: of the data set, `target/videos/<name>/1.0.0`; empty: none is built.
    validation: share of the files that become the validation split.
    seed: of the split.
    runner: 'local' (processes here) or 'beam' (Apache Beam).
    beam: flags of the Beam pipeline.
    workers: processes; -1: one less than there are cores.
    requests: clips that are described at a time.
  """

  source: str
  target: str
  captions: str = ''
  size: tuple[int, int] = (480, 832)
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  describe: DescribeConfig = dataclasses.field(default_factory=DescribeConfig)
  need_captions: bool = False
  reviews: Literal['ignore', 'any', 'all'] = 'any'
  name: str = 'default'
  validation: float = 0.0
  seed: int = 0
  runner: Literal['local', 'beam'] = 'local'
  beam: tuple[str, ...] = ()
  workers: int = -1
  requests: int = 4

  def __post_init__(self):
    if not 0 <= self.validation <= 1:
      raise UserError(f'validation must be from 0 to 1, not {self.validation}')
    if self.workers < -1 or self.requests < 1:
      raise UserError(
        'workers must be >= -1 and requests >= 1, not '
        f'{self.workers} and {self.requests}'
      )
    if self.name and not self.name.replace('_', '').replace('-', '').isalnum():
      raise UserError(f'name may hold letters, digits, - and _: {self.name!r}')


def run(config: Config) -> None:
  """Does what is not done yet and says what came of every file."""
  job = make_job(config)
  names = work.prepare(job)
  examine(config, job, names)
  records = list(work.records(job, names))
  if config.describe.chat.model:
    describe(config, [c for r in records for c in r['clips']])
  kept, rejected = collect(config, records)
  target = pathlib.Path(job.target)
  write_lines(target / 'clips.jsonl', kept)
  write_lines(target / 'rejected.jsonl', rejected)
  show(config, len(records), kept, rejected)
  if config.name and kept:
    from jaxvid.data.videos import dataset  # Slow, and not on GPU paths.

    splits = dataset.split(kept, config.validation, config.seed)
    options = config.beam if config.runner == 'beam' else None
    place, new = dataset.build(job.target, config.name, splits, options)
    print(f'{place} ({"written" if new else "up to date"})')


def make_job(config: Config) -> work.Job:
  """What the workers need to know."""

  def whole(path: str) -> str:
    return str(pathlib.Path(path).expanduser().resolve()) if path else ''

  return work.Job(
    whole(config.source),
    whole(config.target),
    whole(config.captions),
    config.size,
    config.clips,
  )


def examine(config: Config, job: work.Job, names: Sequence[str]) -> None:
  """Makes the records that are missing."""
  if job.captions:  # A mistake in there is said at once.
    work.find_captions(work.all_captions(job.captions), '')
  todo = [name for name in names if not work.is_done(job, name)]
  if len(todo) < len(names):
    say(f'{len(names) - len(todo)} of {len(names)} files were done before')
  if not todo:
    return
  if config.runner == 'beam':
    from jaxvid.data.videos import beam

    beam.run(job, todo, config.beam)
    return
  count = workers.default_count() if config.workers < 0 else config.workers
  results = pool.each(
    work.process,
    job,
    todo,
    min(count, len(todo)),
    lambda name: work.give_up(job, name, pool.DIED),
  )
  with progress(len(todo), 'files') as update:
    for i, record in enumerate(results, 1):
      update(i, record['file'])


def describe(config: Config, clips: Iterable[work.Clip]) -> None:
  """Asks for the captions that are missing, several clips at a time.

  Raises:
    UserError: the endpoint gave up; what it answered so far is kept.
  """
  settings, target = config.describe, make_job(config).target
  chat.read_key(settings.chat)  # A missing key is said at once.
  todo = [
    clip
    for clip in clips
    if 'reason' not in clip
    and describe_lib.wants(clip, settings)
    and not describe_lib.path_of(target, clip).exists()
  ]
  if not todo:
    return
  stop = threading.Event()

  def pause(seconds: float) -> None:
    if stop.wait(seconds):
      raise InterruptedError

  def one(clip: work.Clip) -> str:
    if not stop.is_set():
      describe_lib.describe(target, clip, settings, pause)
    return clip['id']

  with (
    concurrent.futures.ThreadPoolExecutor(config.requests) as threads,
    progress(len(todo), 'clips described') as update,
  ):
    futures = [threads.submit(one, clip) for clip in todo]
    try:
      for i, future in enumerate(concurrent.futures.as_completed(futures), 1):
        update(i, future.result())
    finally:
      stop.set()
      threads.shutdown(cancel_futures=True)


def collect(
  config: Config, records: Iterable[work.Record]
) -> tuple[list[work.Clip], list[dict[str, Any]]]:
  """Kept clips with their final captions, and everything that is left out."""
  target = make_job(config).target
  everyone = list(review.read_all(target).values())
  kept, rejected = [], []
  for record in records:
    if 'reason' in record:
      rejected.append({k: record[k] for k in ('file', 'reason', 'detail')})
    for clip in record['clips']:
      if 'reason' not in clip:
        clip = final(config, target, clip, everyone)
      if 'reason' in clip:
        row = {'file': record['file'], **clip}
        del row['captions'], row['chunks']
        rejected.append(row)
      else:
        kept.append(clip)
  return kept, rejected


def final(
  config: Config,
  target: str,
  clip: work.Clip,
  everyone: Sequence[review.Answers],
) -> work.Clip:
  """A clip with captions from the model and the annotators."""
  described = work.read_json(describe_lib.path_of(target, clip))
  said = clip['captions']
  if described is not None and describe_lib.wants(clip, config.describe):
    said = described['captions']
  if config.reviews != 'ignore':
    said = review.mended(clip['id'], said, everyone)
  clip = clip | {'captions': said}
  if why := review.rejected(clip['id'], everyone, config.reviews):
    return clip | {'reason': 'review', 'detail': why}
  if config.need_captions and not all(said):
    return clip | {'reason': 'uncaptioned', 'detail': ''}
  return clip


def write_lines(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
  """A JSON object per line."""
  with files.replacing(path) as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False).encode() + b'\n')


def show(config: Config, count: int, kept, rejected) -> None:
  """What came of the files, on standard output."""
  frames = sum(clip['end'] - clip['start'] for clip in kept)
  minutes = frames / config.clips.fps / 60
  without = sum(not all(clip['captions']) for clip in kept)
  print(f'{count} files: {len(kept)} clips, {minutes:.1f} minutes')
  if without:
    print(f'  {without} of them lack a caption')
  reasons = collections.Counter(row['reason'] for row in rejected)
  for reason, number in sorted(reasons.items()):
    print(f'  left out, {reason}: {number}')
  print(f'lists: {config.target}/clips.jsonl and rejected.jsonl')
