"""Filters a list of prompts and has a language model extend them.

Answers are kept as they come, so that a job which is stopped or killed goes
on where it was; the target itself appears complete or not at all.
"""

import contextlib
import dataclasses
import json
import pathlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    source: the list: .txt, .csv, .tsv, .jsonl or .json.
    column: that holds the prompts; empty: `prompt` or the like.
    target: .txt (one prompt per line) or .jsonl (`prompt` and `extended`).
    filter: what is left out.
    count: prompts chosen by chance from what is left; 0 = all.
    seed: of the choice.
    chat: the endpoint; without a model nothing is extended.
    instruction: what the model is told to do.
    workers: requests at a time.
  """

  source: str
  target: str
  column: str = ''
  filter: FilterConfig = dataclasses.field(default_factory=FilterConfig)
  count: int = 0
  seed: int = 0
  chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
  instruction: str = INSTRUCTION
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
  extended = chosen
  if config.chat.model:
    with _journal(target, config) as journal:
      extended = extend(config, chosen, journal)
  with files.replacing(target) as file:
    for prompt, text in zip(chosen, extended, strict=True):
      line = text
      if target.suffix == '.jsonl':
        line = json.dumps(
          {'prompt': prompt, 'extended': text}, ensure_ascii=False
        )
      file.write((line + '\n').encode())
  _journal_path(target).unlink(missing_ok=True)
  print(f'{target}: {len(chosen)} prompts')


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
  head = [config.chat.model, config.instruction]
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
      journal.add(prompt, _one_line(answer))
      update(before + i, '')
  unanswered = [prompt for prompt in chosen if not journal.done[prompt]]
  if unanswered:
    say(f'{len(unanswered)} prompts had no answer and stay as they were')
  return [journal.done[prompt] or prompt for prompt in chosen]


def _one_line(answer: str) -> str:
  """An answer without quotation marks and line ends."""
  return tokenizer.clean(tokenizer.clean(answer).strip('"'))


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
        answer = chat.ask(config.chat, config.instruction, text, pause)
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
