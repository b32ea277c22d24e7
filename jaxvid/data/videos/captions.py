"""Captions with times, as people and benchmarks write them down.

A caption covers a span of its video in seconds. In texts the span may stand
at the end, as in LV-Bench: `A swan glides across a lake (00s - 03s).` names
whole seconds, both included, so the next one starts at 04s.
"""

import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxvid.errors import UserError

# Keys of records, the first that is there.
FILES = ('file', 'video', 'path', 'video_path', 'file_name', 'name', 'id')
TEXTS = ('caption', 'text', 'prompt', 'description')
LISTS = ('captions', 'chunks', 'segments')
STARTS = ('start', 'start_time', 'begin', 'from')
ENDS = ('end', 'end_time', 'to')
SIDECARS = ('.json', '.jsonl', '.txt')
_SPAN = re.compile(
  r'\s*\(\s*(\d+(?:\.\d+)?)\s*s?\s*[-–—]\s*(\d+(?:\.\d+)?)\s*s?\s*\)\s*([.!?]?)\s*$'
)


class Caption(NamedTuple):
  """What is to be seen from `start` until just before `end`, in seconds."""

  start: float
  end: float
  text: str


class Script(NamedTuple):
  """The captions of one video in the order of time.

  Attributes:
    name: of the video, as the source says it.
    captions: at least one.
  """

  name: str
  captions: tuple[Caption, ...]

  @property
  def seconds(self) -> float:
    """When the last caption ends; infinite if that is not known."""
    return max(caption.end for caption in self.captions)


def from_text(text: str) -> Caption:
  """A caption with its span cut off; without one it covers all times."""
  text = ' '.join(text.split())
  match = _SPAN.search(text)
  if not match:
    return Caption(0.0, math.inf, text)
  start, end = float(match[1]), float(match[2])
  whole = '.' not in match[1] + match[2]
  text = text[: match.start()] + match[3]
  # '00s - 03s' includes second 3.
  return Caption(start, end + 1 if whole else end, text)


def to_text(caption: Caption) -> str:
  """The caption with its span, as LV-Bench writes it where that is exact."""
  start, end, text = caption
  if math.isinf(end):
    return text
  if start == int(start) and end == int(end) and end > start:
    return f'{text} ({int(start):02d}s - {int(end) - 1:02d}s)'
  return f'{text} ({start:.2f}s - {end:.2f}s)'


def from_record(record: Any) -> list[Caption]:
  """The captions of one JSON value.

  Args:
    record: a text, a list of records, or an object with a text (and maybe a
      start and an end) or a list of captions.

  Raises:
    ValueError: none of these.
  """
  if isinstance(record, str):
    return [from_text(record)] if record.strip() else []
  if isinstance(record, list):
    return [caption for item in record for caption in from_record(item)]
  if not isinstance(record, Mapping):
    raise ValueError(f'{str(record)[:40]!r} is no caption')
  key = _first(record, LISTS)
  if key and isinstance(record[key], list):
    return from_record(record[key])
  key = _first(record, TEXTS)
  if not key:
    raise ValueError(f'no key {", ".join((*TEXTS, *LISTS))}')
  found = from_record(record[key])
  start, end = _first(record, STARTS), _first(record, ENDS)
  if len(found) == 1 and (start or end):
    caption = found[0]
    return [
      Caption(
        float(record[start]) if start else caption.start,
        float(record[end]) if end else caption.end,
        caption.text,
      )
    ]
  return found


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str:
  return next((name for name in names if record.get(name) is not None), '')


def in_order(captions: Iterable[Caption]) -> tuple[Caption, ...]:
  """Sorted by time; spans that are empty or negative are an error."""
  result = tuple(sorted(captions, key=lambda c: (c.start, c.end)))
  for caption in result:
    if not 0 <= caption.start < caption.end:
      raise ValueError(f'a caption from {caption.start} to {caption.end} s')
  return result


def read_scripts(path: str | pathlib.Path) -> list[Script]:
  """The scripts of a file.

  Args:
    path: `.jsonl` (an object per line) or `.json` (a list of objects, one
      object, or an object of file name -> captions). Objects name a file
      (one of `FILES`) and hold captions; several of one file are joined.
      Those without a file are numbered.

  Raises:
    UserError: missing, empty, or written otherwise.
  """
  path = pathlib.Path(path).expanduser()
  try:
    with path.open(encoding='utf-8-sig') as file:
      return _joined(_records(path.suffix.lower(), file))
  except OSError as error:
    raise UserError(f'cannot read captions {path}: {error.strerror}') from error
  except (ValueError, TypeError) as error:
    raise UserError(f'cannot read captions {path}: {error}') from error


def _records(suffix: str, file) -> Iterator[tuple[str, Any]]:
  """(file name or '', record) pairs."""
  if suffix == '.jsonl':
    values = [json.loads(line) for line in file if line.strip()]
  elif suffix == '.json':
    values = json.load(file)
  else:
    raise ValueError('write .json or .jsonl')
  if isinstance(values, Mapping):
    if not _first(values, (*LISTS, *TEXTS)):
      yield from values.items()
      return
    values = [values]
  for value in values:
    key = _first(value, FILES) if isinstance(value, Mapping) else ''
    yield str(value[key]) if key else '', value


def _joined(records: Iterable[tuple[str, Any]]) -> list[Script]:
  scripts: dict[str, list[Caption]] = {}
  for number, (name, record) in enumerate(records):
    found = from_record(record)
    if found:
      scripts.setdefault(name or f'{number:05d}', []).extend(found)
  if not scripts:
    raise ValueError('it holds no caption')
  return [Script(name, in_order(found)) for name, found in scripts.items()]


def sidecar(video: pathlib.Path) -> tuple[Caption, ...]:
  """The captions in a file beside a video, e.g. `a.txt` of `a.mp4`.

  A `.txt` file holds one caption per line if its lines have spans, else one
  text for the whole video.

  Returns:
    none, if there is no such file.

  Raises:
    UserError: a file that is written otherwise.
  """
  for suffix in SIDECARS:
    path = video.with_suffix(suffix)
    if not path.is_file():
      continue
    if suffix != '.txt':
      scripts = read_scripts(path)
      return in_order(c for script in scripts for c in script.captions)
    try:
      lines = path.read_text(encoding='utf-8-sig').splitlines()
      lines = [line for line in lines if line.strip()]
      if not any(_SPAN.search(line) for line in lines):
        lines = [' '.join(lines)] if lines else []
      return in_order(map(from_text, lines))
    except (OSError, ValueError) as error:
      raise UserError(f'cannot read captions {path}: {error}') from error
  return ()


def within(
  captions: Sequence[Caption], start: float, end: float
) -> list[Caption]:
  """The captions that overlap a span, the longest overlap first."""

  def shared(caption: Caption) -> float:
    return min(caption.end, end) - max(caption.start, start)

  found = [caption for caption in captions if shared(caption) > 0]
  return sorted(found, key=lambda caption: (-shared(caption), caption.start))
