"""Filters a list of prompts and has a language model extend them, or go on.

Answers are kept as they come, so that a job which is stopped or killed goes
on where it was; the target itself appears complete or not at all.
"""

import contextlib
import dataclasses
import json
import pathlib
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from jaxvid.data import chat, files, prompts, tokenizer
from jaxvid.data.chat import ChatConfig
from jaxvid.data.prompts import FilterConfig
from jaxvid.errors import UserError
from jaxvid.tasks.progress import progress, say

INSTRUCTION = (
  'You turn short ideas into prompts for a text-to-video model. Answer with '
  'one English paragraph of 60 to 100 words and nothing else. Keep everything '
  'the idea says; add how the subject looks and moves, the place, the light, '
  'the style and the camera. Describe a single shot of five seconds.'
)
# What LongLive asks for (appendix E), in words of our own.
FOLLOW_UP = """\
You write prompts for videos that change while they play. You are given the \
ORIGINAL_PROMPT of the first part of one continuous shot. Describe the moment \
that comes next in that same shot.
- Exactly one thing is new: an action of the main subject, or an object that \
it deals with.
- Setting, subject, mood, style, size of the picture, and movement and angle \
of the camera are those of the ORIGINAL_PROMPT.
- Nothing disappears, unless the new action hides it naturally.
- The text stands alone: nobody can tell that there was one before it, so no \
"still", "as before" or "continues".
- Plain English of 80 to 100 words, in one paragraph, without rare or literary \
words.
- It ends with the camera words that the ORIGINAL_PROMPT ends with, single \
spaces between them, no brackets.
Answer with one line, <OUTPUT>the paragraph</OUTPUT>, and nothing else: no \
greeting, no heading, no list, no markdown. What stands outside the tags is \
thrown away."""
_OUTPUT = re.compile(r'<OUTPUT>(.*?)</OUTPUT>', re.DOTALL | re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    source: the list: .txt, .csv, .tsv, .jsonl or .json.
    column: that holds the prompts; empty: `prompt` or the like.
    target: .txt (one prompt per line) or .jsonl (`prompt` and `extended`).
    kind: `extend` makes prompts longer; `switch` writes what follows each of
      them: .txt (line by line as the source, for training) or .jsonl
      (`prompt` and `follow_up`; of more scenes than two, `prompts`, as
      LongLive's interactive scripts).
    scenes: prompts per video of `switch`.
    tries: how often an answer is asked for that is not of the wanted form.
    filter: what is left out.
    count: prompts chosen by chance from what is left; 0 = all.
    seed: of the choice.
    chat: the endpoint; without a model nothing is extended.
    instruction: what the model is told to do; empty: as `kind` needs it.
    workers: requests at a time.
  """

  source: str
  target: str
  column: str = ''
  kind: Literal['extend', 'switch'] = 'extend'
  scenes: int = 2
  tries: int = 3
  filter: FilterConfig = dataclasses.field(default_factory=FilterConfig)
  count: int = 0
  seed: int = 0
  chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
  instruction: str = ''
  workers: int = 8

  def __post_init__(self):
    if pathlib.Path(self.target).suffix not in ('.txt', '.jsonl'):
      raise UserError(
        f'target must be a .txt or .jsonl file, not {self.target!r}'
      )
    if self.count < 0 or self.workers < 1:
      raise UserError(
        f'count must be >= 0 and workers >= 1, not {self.count} and '
        f'{self.workers}'
      )
    if self.scenes < 2 or self.tries < 1:
      raise UserError(
        f'scenes must be >= 2 and tries >= 1, not {self.scenes} and '
        f'{self.tries}'
      )
    if self.kind == 'switch' and not self.chat.model:
      raise UserError("kind='switch' needs a language model: chat.model")
    if self.scenes > 2 and pathlib.Path(self.target).suffix == '.txt':
      raise UserError('videos of more than two scenes go to a .jsonl target')

  @property
  def told(self) -> str:
    """The instruction that the model gets."""
    usual = {'extend': INSTRUCTION, 'switch': FOLLOW_UP}
    return self.instruction or usual[self.kind]


def run(config: Config) -> None:
  """Writes the target and says what was left out."""
  target = pathlib.Path(config.target).expanduser()
  files.check_writable(target)
  rows = prompts.read_rows(config.source, config.column)
  kept, gone = prompts.filtered(rows, config.filter)
  reasons = ', '.join(f'{why} {count}' for why, count in sorted(gone.items()))
  say(f'{len(kept)} prompts stay, {gone.total()} go ({reasons or "none"})')
  chosen = prompts.sample(kept, config.count, config.seed)
  if not chosen:
    raise UserError(f'nothing of {config.source} is left')
  lines = chosen
  if config.chat.model:
    with _journal(target, config) as journal:
      lines = _written(config, chosen, journal)
  elif target.suffix == '.jsonl':
    lines = [_json(prompt=prompt, extended=prompt) for prompt in chosen]
  with files.replacing(target) as file:
    for line in lines:
      file.write((line + '\n').encode())
  _journal_path(target).unlink(missing_ok=True)
  print(f'{target}: {len(lines)} prompts')


def _written(
  config: Config, chosen: Sequence[str], journal: 'Journal'
) -> list[str]:
  """Lines of the target."""
  plain = config.target.endswith('.txt')
  if config.kind == 'extend':
    extended = extend(config, chosen, journal)
    if plain:
      return extended
    pairs = zip(chosen, extended, strict=True)
    return [_json(prompt=prompt, extended=text) for prompt, text in pairs]
  videos = follow(config, chosen, journal)
  if plain:
    return [video[-1] for video in videos]
  whole = [video for video in videos if len(set(video)) == config.scenes]
  if len(whole) < len(videos):
    say(f'{len(videos) - len(whole)} videos without all scenes are left out')
  if config.scenes > 2:
    return [_json(prompts=video) for video in whole]
  return [_json(prompt=a, follow_up=b) for a, b in whole]


def _json(**values: Any) -> str:
  return json.dumps(values, ensure_ascii=False)


class Journal:
  """Answers so far, one JSON line each, kept beside the target.

  Attributes:
    done: prompt -> answer.
  """

  def __init__(self, file, done: dict[str, str]):
    self._file, self.done = file, done

  def add(self, prompt: str, answer: str) -> None:
    """Keeps an answer; it is on the way to disk when this returns."""
    self.done[prompt] = answer
    self._file.write(json.dumps([prompt, answer]).encode() + b'\n')
    self._file.flush()


def _journal_path(target: pathlib.Path) -> pathlib.Path:
  return target.with_name(target.name + '.part')


@contextlib.contextmanager
def _journal(target: pathlib.Path, config: Config) -> Iterator[Journal]:
  """Opens the journal of a target, old or new."""
  path = _journal_path(target)
  head = [config.chat.model, config.told]
  with files.naming(path), path.open('a+b') as file:
    file.seek(0)
    lines = file.read().split(b'\n')
    # What follows the last line end was cut off by a kill.
    file.truncate(sum(len(line) + 1 for line in lines[:-1]))
    try:
      first, *entries = [json.loads(line) for line in lines[:-1]] or [head]
      done = {str(prompt): str(answer) for prompt, answer in entries}
    except ValueError as error:
      raise UserError(f'{path} is damaged; remove it') from error
    if first != head:
      raise UserError(
        f'{path} was begun with another model or instruction; remove it or '
        'give another target'
      )
    if len(lines) == 1:
      file.write(json.dumps(head).encode() + b'\n')
    yield Journal(file, done)


def extend(
  config: Config, chosen: Sequence[str], journal: Journal
) -> list[str]:
  """The extended prompts in order; where there is no answer, the prompt.

  Raises:
    UserError: the endpoint gave up; what it answered so far is kept.
  """
  chat.read_key(config.chat)  # A missing key is said at once.
  different = dict.fromkeys(chosen)
  missing = [prompt for prompt in different if prompt not in journal.done]
  before = len(different) - len(missing)
  if before:
    say(f'{before} of {len(different)} prompts were extended before')
  with progress(len(different), 'prompts') as update:
    for i, (prompt, answer) in enumerate(_answers(config, missing), 1):
      journal.add(prompt, answer)
      update(before + i, '')
  unanswered = [prompt for prompt in chosen if not journal.done[prompt]]
  if unanswered:
    say(f'{len(unanswered)} prompts had no answer and stay as they were')
  return [journal.done[prompt] or prompt for prompt in chosen]


def follow(
  config: Config, chosen: Sequence[str], journal: Journal
) -> list[list[str]]:
  """Prompts of every video in order: what follows what follows, and so on.

  Where there is no answer, a prompt follows itself. Errors as of `extend`.
  """
  videos = [[prompt] for prompt in chosen]
  for _ in range(config.scenes - 1):
    after = extend(config, [video[-1] for video in videos], journal)
    videos = [[*video, text] for video, text in zip(videos, after, strict=True)]
  return videos


def _text(config: Config, answer: str) -> str:
  """What an answer says, in one line; '' if it is not of the wanted form."""
  if config.kind == 'switch':
    found = _OUTPUT.search(answer)
    answer = found[1] if found else ''
  return tokenizer.clean(tokenizer.clean(answer).strip('"'))


def _ask(config: Config, text: str, pause) -> str:
  """The answer to one prompt; asked again while it is of no use."""
  said = text if config.kind == 'extend' else f'ORIGINAL_PROMPT: {text}'
  tries = config.tries if config.kind == 'switch' else 1
  for _ in range(tries):
    answer = _text(config, chat.ask(config.chat, config.told, said, pause))
    if answer and answer != text:
      return answer
  return '' if config.kind == 'switch' else answer


def _answers(config: Config, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
  """(text, answer) pairs as they come, several requests at a time."""
  todo: queue.SimpleQueue[str] = queue.SimpleQueue()
  answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
  count = 0
  for text in texts:
    todo.put(text)
    count += 1
  stop = threading.Event()

  def pause(seconds: float) -> None:
    if stop.wait(seconds):
      raise InterruptedError

  def work() -> None:
    while not stop.is_set():
      try:
        text = todo.get_nowait()
      except queue.Empty:
        return
      try:
        answer = _ask(config, text, pause)
      except Exception as error:  # raised again where it is waited for
        answers.put((text, error))
        return
      answers.put((text, answer))

  # Daemons: Ctrl-C need not wait for answers under way.
  for _ in range(min(config.workers, count)):
    threading.Thread(target=work, daemon=True).start()
  try:
    for _ in range(count):
      text, answer = answers.get()
      if isinstance(answer, Exception):
        raise answer
      yield text, answer
  finally:
    stop.set()
