"""What annotators say of clips, and how far they agree.

Each annotator has a file of answers, one JSON line per answer; the last one
on an item counts. Items are clips (is it fit for the set?), chunks (are they
free of cuts and other faults?) and captions (are they right?), as in BlockVid
section 4, which asks at least two annotators at every stage.
"""

import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxvid.data import files
from jaxvid.errors import UserError

KINDS = ('clip', 'chunk', 'caption')
Rule = Literal['ignore', 'any', 'all']


class Item(NamedTuple):
  """What a verdict is about; clips as a whole have chunk -1."""

  clip: str
  kind: str
  chunk: int = -1


class Answer(NamedTuple):
  """An annotator's verdict.

  Attributes:
    good: fit, free of faults, right.
    text: a better caption; '' if none was written.
    time: of the answer, seconds since 1970.
  """

  good: bool
  text: str = ''
  time: float = 0.0


Answers = dict[Item, Answer]


class Agreement(NamedTuple):
  """How two annotators agree on the items that both judged.

  Attributes:
    items: how many.
    share: of equal verdicts.
    kappa: Cohen's; not a number where chance alone agrees fully.
  """

  items: int
  share: float
  kappa: float


def path_of(target: str | pathlib.Path, annotator: str) -> pathlib.Path:
  """An annotator's file; UserError for a name that is no file name."""
  if not re.fullmatch(r'[\w-]{1,40}', annotator):
    raise UserError(
      f'annotator may hold letters, digits, _ and -, not {annotator!r}'
    )
  return pathlib.Path(target) / 'review' / f'{annotator}.jsonl'


def parse(value: Any) -> tuple[Item, Answer]:
  """One answer from JSON; ValueError if it is none."""
  item = Item(str(value['clip']), value['kind'], int(value.get('chunk', -1)))
  if item.kind not in KINDS or not isinstance(value['good'], bool):
    raise ValueError(f'{value} is no answer')
  text = ' '.join(str(value.get('text', '')).split())
  return item, Answer(value['good'], text, float(value.get('time', 0)))


def append(path: pathlib.Path, item: Item, answer: Answer) -> None:
  """Adds an answer; it is on the way to disk when this returns."""
  line = json.dumps({**item._asdict(), **answer._asdict()}, ensure_ascii=False)
  with files.naming(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('ab+') as file:
      # A line that a kill cut off must not swallow this one.
      if file.tell():
        file.seek(-1, 2)
        line = line if file.read() == b'\n' else '\n' + line
      file.write(line.encode() + b'\n')


def read(path: pathlib.Path) -> Answers:
  """The answers in a file; lines that a kill cut off are skipped."""
  answers: Answers = {}
  try:
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  except FileNotFoundError:
    return answers
  for line in lines:
    try:
      item, answer = parse(json.loads(line))
    except (ValueError, KeyError, TypeError):
      continue
    answers[item] = answer
  return answers


def read_all(target: str | pathlib.Path) -> dict[str, Answers]:
  """The answers of every annotator."""
  folder = pathlib.Path(target) / 'review'
  return {path.stem: read(path) for path in sorted(folder.glob('*.jsonl'))}


def kappa(one: Sequence[Any], two: Sequence[Any]) -> float:
  """Cohen's kappa (1960) of two annotators' labels of the same items.

  (p_o - p_e) / (1 - p_e) with the observed and the expected agreement. Not a
  number without items, or where both say one and the same thing throughout.
  """
  if len(one) != len(two):
    raise ValueError('two annotators need the same items')
  count = len(one)
  if not count:
    return math.nan
  observed = sum(a == b for a, b in zip(one, two, strict=True)) / count
  expected = sum(
    list(one).count(label) * list(two).count(label)
    for label in set(one) | set(two)
  ) / (count * count)
  return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def agreement(
  answers: Mapping[str, Answers],
) -> dict[tuple[str, str], dict[str, Agreement]]:
  """For each pair of annotators and each kind of item."""
  result = {}
  for one, two in itertools.combinations(sorted(answers), 2):
    both = sorted(answers[one].keys() & answers[two].keys())
    found = {}
    for kind in KINDS:
      items = [item for item in both if item.kind == kind]
      a = [answers[one][item].good for item in items]
      b = [answers[two][item].good for item in items]
      equal = sum(x == y for x, y in zip(a, b, strict=True))
      share = equal / len(items) if items else math.nan
      found[kind] = Agreement(len(items), share, kappa(a, b))
    result[one, two] = found
  return result


def rejected(clip: str, everyone: Iterable[Answers], rule: Rule) -> str:
  """Why annotators leave a clip out; '' if they do not.

  Args:
    clip: its id.
    everyone: the answers of each annotator.
    rule: one 'any' bad verdict is enough, or 'all' who judged the item must
      find it bad, or reviews are ignored.
  """
  verdicts: dict[Item, list[bool]] = {}
  for answers in everyone if rule != 'ignore' else ():
    for item, answer in answers.items():
      # A wrong caption that was mended is no reason.
      if item.clip == clip and not (item.kind == 'caption' and answer.text):
        verdicts.setdefault(item, []).append(answer.good)
  for item, good in sorted(verdicts.items()):
    bad = not all(good) if rule == 'any' else not any(good)
    if bad and item.kind == 'clip':
      return 'the clip is not fit'
    if bad:
      return f'{item.kind} {item.chunk} is at fault'
  return ''


def mended(
  clip: str, captions: Sequence[str], everyone: Iterable[Answers]
) -> list[str]:
  """The captions with what annotators wrote instead, the latest counting."""
  result = list(captions)
  edits = [
    (answer.time, item.chunk, answer.text)
    for answers in everyone
    for item, answer in answers.items()
    if item.clip == clip and item.kind == 'caption' and answer.text
  ]
  for _, chunk, text in sorted(edits):
    if 0 <= chunk < len(result):
      result[chunk] = text
  return result
