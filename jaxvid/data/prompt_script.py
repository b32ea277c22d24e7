"""Scripts: which prompt a video follows from when on.

Read are

* `.jsonl` with one cue per line, `{"time": 5.0, "prompt": "..."}`;
* `.yaml` or `.json`: a list of such cues, or
  `{prompts: [...], times: [0, 5.0]}`;
* LongLive's `.jsonl`: one video per line, `{"prompts": [...]}`. When they
  change stands elsewhere, in latent frames (`frames`); it may also stand in
  the line itself, as `times` or `frames`.

Times are seconds of video. They say when a prompt is wanted; it takes effect
at the next chunk.
"""

import itertools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxvid.data import files, tokenizer
from jaxvid.errors import UserError

FPS = 16
STRIDE = 4  # video frames per latent frame
SUFFIXES = ('.jsonl', '.yaml', '.yml', '.json')


class Cue(NamedTuple):
  """A prompt and when it is wanted.

  Attributes:
    prompt: the text, cleaned.
    latent: latent frame, 0 = the beginning; need not be whole.
    when: as it was said, for messages.
  """

  prompt: str
  latent: float
  when: str


def latent_at(seconds: float, fresh: bool = True) -> float:
  """Latent frame that shows a time of the video.

  The first latent of a video stands for one frame, the others for four; a
  stream that goes on after a picture or a video has only such.
  """
  if seconds <= 0:
    return 0.0
  return (FPS * seconds + (STRIDE - 1 if fresh else 0)) / STRIDE


def seconds_at(latent: float, fresh: bool = True) -> float:
  """The inverse of `latent_at`."""
  return max(0.0, STRIDE * latent - (STRIDE - 1 if fresh else 0)) / FPS


def read_script(
  path: str | pathlib.Path,
  line: int = 0,
  frames: Sequence[int] = (),
  fresh: bool = True,
) -> list[Cue]:
  """The cues of a script, in order.

  Args:
    path: of the file.
    line: which video of a file with one per line.
    frames: latent frames at which the second and later prompts begin, where
      the file does not say.
    fresh: see `latent_at`.

  Raises:
    UserError: no such file, no script, no prompt, or times that do not rise.
  """
  path = pathlib.Path(path).expanduser()
  if path.suffix.lower() not in SUFFIXES:
    raise UserError(
      f'scripts are read from {", ".join(SUFFIXES)}, not from {str(path)!r}'
    )
  try:
    text = path.read_text(encoding='utf-8-sig')
    rows = _rows(path.suffix.lower(), text, line)
    cues = _cues(rows, frames, fresh)
    check_order(cues)
  except OSError as error:
    raise UserError(f'cannot read script {path}: {error.strerror}') from error
  except ValueError as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'cannot read script {path}: {reason}') from error
  except UserError as error:
    raise UserError(f'script {path}: {error}') from None
  return cues


def check_order(cues: Sequence[Cue]) -> None:
  """UserError if there is no cue, or if one comes before its predecessor."""
  if not cues:
    raise UserError('it holds no prompt')
  for a, b in itertools.pairwise(cues):
    if b.latent <= a.latent:
      raise UserError(
        f'the prompt at {b.when} does not come after that at {a.when}'
      )


def _rows(suffix: str, text: str, line: int) -> Any:
  """Cues as written, or an object with prompts."""
  if suffix in ('.yaml', '.yml'):
    import yaml

    try:
      return yaml.safe_load(text)
    except yaml.YAMLError as error:
      raise ValueError(str(error)) from error
  if suffix == '.json':
    return json.loads(text)
  rows = [json.loads(row) for row in text.splitlines() if row.strip()]
  if not rows or not all(isinstance(r, dict) and 'prompts' in r for r in rows):
    return rows
  if not 0 <= line < len(rows):
    raise UserError(f'there is no line {line}; it holds {len(rows)} videos')
  return rows[line]


def _cues(rows: Any, frames: Sequence[int], fresh: bool) -> list[Cue]:
  if isinstance(rows, Mapping):
    return _video(rows, frames, fresh)
  if not isinstance(rows, list):
    raise ValueError('it is no list of cues')
  cues = []
  for i, row in enumerate(rows, 1):
    if not isinstance(row, Mapping) or 'prompt' not in row:
      raise ValueError(f'cue {i} has no prompt')
    cues.append(_at(row['prompt'], row.get('time', 0.0), fresh, i))
  return cues


def _video(row: Mapping[str, Any], frames, fresh: bool) -> list[Cue]:
  prompts = row.get('prompts')
  if not isinstance(prompts, list):
    raise ValueError('prompts is no list')
  if not prompts:
    return []
  if 'times' in row:
    times = row['times']
    _check_count(prompts, times, len(prompts), 'times')
    pairs = zip(prompts, times, strict=True)
    return [_at(p, t, fresh, i) for i, (p, t) in enumerate(pairs, 1)]
  frames = row.get('frames', frames)
  _check_count(prompts, frames, max(0, len(prompts) - 1), 'frames')
  begins = [0, *frames]
  if not all(isinstance(f, int) and f >= 0 for f in begins):
    raise ValueError(f'frames must be whole numbers, not {list(frames)}')
  return [
    Cue(_clean(prompt), float(frame), f'latent frame {frame}')
    for prompt, frame in zip(prompts, begins, strict=True)
  ]


def _check_count(prompts, times, wanted: int, name: str) -> None:
  if not isinstance(times, list | tuple) or len(times) != wanted:
    got = len(times) if isinstance(times, list | tuple) else times
    raise UserError(
      f'{len(prompts)} prompts need {wanted} {name}, not {got}'
      + (' (--config.switch.frames)' if name == 'frames' else '')
    )


def _at(prompt: Any, seconds: Any, fresh: bool, number: int) -> Cue:
  number_like = isinstance(seconds, int | float)
  if not number_like or isinstance(seconds, bool):
    raise ValueError(f'time {seconds!r} of cue {number} is no number')
  if not 0 <= seconds < math.inf:
    raise ValueError(f'time {seconds} of cue {number} must be 0 or more')
  when = f'{seconds:g} s'
  return Cue(_clean(prompt), latent_at(float(seconds), fresh), when)


def _clean(prompt: Any) -> str:
  if not isinstance(prompt, str):
    raise ValueError(f'{prompt!r} is no prompt')
  return tokenizer.check_prompt(prompt)


def chunk_of(cue: Cue, chunk: int) -> int:
  """The first chunk of `chunk` latents that begins at or after a cue."""
  return math.ceil(cue.latent / chunk - 1e-6)


def by_chunk(
  cues: Sequence[Cue], chunk: int, num_chunks: int | None
) -> dict[int, str]:
  """Chunk -> prompt that begins there.

  Args:
    cues: in order.
    chunk: latent frames per chunk.
    num_chunks: of the video; None: without end.

  Raises:
    UserError: a cue beyond the end, or two for one chunk.
  """
  found: dict[int, Cue] = {}
  for cue in cues:
    place = chunk_of(cue, chunk)
    if num_chunks is not None and place >= num_chunks:
      end = seconds_at(num_chunks * chunk)
      raise UserError(
        f'the prompt at {cue.when} is beyond the end of the video ({end:g} s)'
      )
    if place in found:
      raise UserError(
        f'the prompts at {found[place].when} and {cue.when} take effect at '
        f'the same chunk; chunks last {STRIDE * chunk / FPS:g} s'
      )
    found[place] = cue
  return {place: cue.prompt for place, cue in found.items()}


def write_script(path: str | pathlib.Path, cues: Sequence[Cue]) -> None:
  """Writes cues as `.jsonl`, whole or not at all."""
  lines = [
    json.dumps(
      {'time': seconds_at(cue.latent), 'prompt': cue.prompt},
      ensure_ascii=False,
    )
    for cue in cues
  ]
  with files.replacing(path) as file:
    file.write(''.join(f'{line}\n' for line in lines).encode())
