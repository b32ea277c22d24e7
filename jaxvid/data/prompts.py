"""Prompt lists: how they are read, and what is left out of them.

Files are plain text (one prompt per line), CSV or TSV with a header, JSON
lines or a JSON list. VidProM's `VidProM_unique.csv` has the columns uuid,
prompt, time and six probabilities of being unsafe; Self-Forcing's
`vidprom_filtered_extended.txt` is plain text.
"""

import csv
import dataclasses
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvid.data import tokenizer
from jaxvid.errors import UserError

# Where the prompt stands, if nobody says; the first that is there.
COLUMNS = ('extended', 'prompt', 'caption', 'text')
# VidProM's probabilities of being unsafe.
UNSAFE = (
  'toxicity',
  'obscene',
  'identity_attack',
  'insult',
  'threat',
  'sexual_explicit',
)
SUFFIXES = ('.txt', '.csv', '.tsv', '.jsonl', '.json')
# Options of the services that prompts were typed into: ' -ar 16:9', ' --hd'.
_OPTIONS = re.compile(r'(?:^|\s)--?[a-z]\w*(?:\s.*)?$', re.IGNORECASE)
# Small words that give a language away. Those that several share count for
# each of them.
_SMALL_WORDS = {
  'en': 'the a an of in on with and is are to at from by into his her for as',
  'es': 'el la los las de del un una con en y por que al se su',
  'fr': 'le la les de des du un une avec dans et sur qui au en est',
  'de': 'der die das ein eine einen und mit im auf von den dem ist zu',
  'pt': 'o os um uma com em de do da no na e que para ao',
  'it': 'il lo la di un una con che del della nel e in su al',
}
_LANGUAGES = {name: set(text.split()) for name, text in _SMALL_WORDS.items()}


class Row(NamedTuple):
  """A prompt as it stands in a file.

  Attributes:
    prompt: the text.
    unsafe: the largest of its probabilities of being unsafe; 0 if unknown.
  """

  prompt: str
  unsafe: float = 0.0


@dataclasses.dataclass(frozen=True)
class FilterConfig:
  """Which prompts of a list are left out.

  Attributes:
    min_words: fewest words.
    max_words: most words.
    max_unsafe: largest probability of being unsafe (VidProM's columns).
    min_ascii: smallest share of ASCII characters.
    english: leave out prompts with more small words (articles, prepositions)
      of another European language than of English. Lists of keywords have
      none of either and stay. A heuristic: it errs on short prompts.
    duplicates: leave out what differs in case, signs and spaces only.
  """

  min_words: int = 3
  max_words: int = 120
  max_unsafe: float = 0.1
  min_ascii: float = 0.95
  english: bool = True
  duplicates: bool = True

  def __post_init__(self):
    if not 0 < self.min_words <= self.max_words:
      raise UserError(
        f'min_words must be from 1 to max_words ({self.max_words}), not '
        f'{self.min_words}'
      )
    for name in ('max_unsafe', 'min_ascii'):
      if not 0 <= getattr(self, name) <= 1:
        raise UserError(
          f'{name} must be from 0 to 1, not {getattr(self, name)}'
        )


def read_rows(path: str | pathlib.Path, column: str = '') -> Iterator[Row]:
  """The prompts of a file, in order; empty ones are skipped.

  Args:
    path: of the file; its suffix says how it is written (`SUFFIXES`).
    column: that holds the prompt; empty: the first of `COLUMNS` there is.

  Raises:
    UserError: no such file, no such column, or not what the suffix says.
  """
  path = pathlib.Path(path).expanduser()
  if path.suffix.lower() not in SUFFIXES:
    raise UserError(
      f'prompts are read from {", ".join(SUFFIXES)}, not from {str(path)!r}'
    )
  try:
    # Some lists begin with a byte order mark.
    with path.open(encoding='utf-8-sig', newline='') as file:
      for record in _records(path.suffix.lower(), file):
        row = _row(record, column)
        if row.prompt.strip():
          yield row
  except OSError as error:
    raise UserError(f'cannot read prompts {path}: {error.strerror}') from error
  except (ValueError, csv.Error) as error:
    raise UserError(f'cannot read prompts {path}: {error}') from error


def read_prompts(path: str | pathlib.Path, column: str = '') -> list[str]:
  """The prompts of a file, cleaned; see `read_rows`.

  Raises:
    UserError: there is none.
  """
  cleaned = [tokenizer.clean(row.prompt) for row in read_rows(path, column)]
  found = [prompt for prompt in cleaned if prompt]
  if not found:
    raise UserError(f'{path} holds no prompt')
  return found


def _records(suffix: str, file) -> Iterator[Any]:
  """Texts or dicts of an open file."""
  if suffix == '.txt':
    yield from file
  elif suffix in ('.csv', '.tsv'):
    yield from csv.DictReader(
      file, dialect='excel' + '-tab' * (suffix[1] == 't')
    )
  elif suffix == '.jsonl':
    for line in file:
      if line.strip():
        yield json.loads(line)
  else:
    value = json.load(file)
    if not isinstance(value, list):
      raise ValueError('it is no JSON list')
    yield from value


def _row(record: Any, column: str) -> Row:
  if isinstance(record, str):
    return Row(record)
  if not isinstance(record, Mapping):
    raise ValueError(f'{str(record)[:40]!r} is neither a text nor an object')
  names = [column] if column else [name for name in COLUMNS if name in record]
  if not names or names[0] not in record:
    have = ', '.join(map(str, record))
    wanted = column or ', '.join(COLUMNS)
    raise ValueError(f'no column {wanted} (there are: {have})')
  unsafe = [float(record[name]) for name in UNSAFE if record.get(name)]
  return Row(str(record[names[0]] or ''), max(unsafe, default=0.0))


def tidy(prompt: str) -> str:
  """The prompt cleaned, without the options typed after it."""
  return _OPTIONS.sub('', tokenizer.clean(prompt)).strip(' ,;')


def fault(row: Row, config: FilterConfig) -> str:
  """Why a (tidy) prompt is left out, in a word; '' if it stays."""
  words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", row.prompt.lower())
  if len(words) < config.min_words:
    return 'short'
  if len(words) > config.max_words:
    return 'long'
  if row.unsafe > config.max_unsafe:
    return 'unsafe'
  if sum(map(str.isascii, row.prompt)) < config.min_ascii * len(row.prompt):
    return 'characters'
  counts = {
    name: sum(word in small for word in words)
    for name, small in _LANGUAGES.items()
  }
  if config.english and max(counts.values()) > counts['en']:
    return 'language'
  return ''


def filtered(
  rows: Iterable[Row], config: FilterConfig
) -> tuple[list[str], Counter[str]]:
  """The prompts that stay, tidied and in order, and how many went why."""
  kept, gone, seen = [], Counter(), set()
  for row in rows:
    row = row._replace(prompt=tidy(row.prompt))
    why = fault(row, config)
    key = ' '.join(re.findall(r'\w+', row.prompt.casefold()))
    if not why and config.duplicates and key in seen:
      why = 'duplicate'
    seen.add(key)
    if why:
      gone[why] += 1
    else:
      kept.append(row.prompt)
  return kept, gone


def sample(prompts: Sequence[str], count: int, seed: int) -> list[str]:
  """`count` different ones in their order, by chance; 0 = all.

  Raises:
    UserError: there are not so many.
  """
  if count > len(prompts):
    raise UserError(f'{count} prompts are asked for, {len(prompts)} are left')
  if not count:
    return list(prompts)
  chosen = np.random.default_rng(seed).choice(len(prompts), count, False)
  return [prompts[i] for i in sorted(chosen)]
