"""Prompts to token ids: cleaning as upstream, then SentencePiece.

Facts: Wan2.1 `wan/modules/tokenizers.py`. A tokenizer is a folder with
`spiece.model` and, for one of ours, `settings.json`; Wan2.1's own
`google/umt5-xxl` has no settings and needs none.
"""

import dataclasses
import html
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
import sentencepiece

from jaxvid.errors import UserError, UserNotice

MODEL = 'spiece.model'
SETTINGS = 'settings.json'
# Where a folder of weights may keep its tokenizer.
_PLACES = ('', 'google/umt5-xxl', 'tokenizer', 'umt5-xxl')


def clean(text: str) -> str:
  """Cleans a prompt exactly as upstream does.

  Repairs encoding mistakes and full-width forms, resolves HTML entities
  (twice: they come escaped twice) and reduces white space. Case stays.
  """
  text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return re.sub(r'\s+', ' ', text.strip()).strip()


def check_prompt(prompt: str) -> str:
  """The cleaned prompt; UserError when nothing is left of it."""
  cleaned = clean(prompt)
  if not cleaned:
    raise UserError(
      'the prompt is empty; say what to show, e.g. '
      '--config.prompt="a red circle moves left"'
    )
  return cleaned


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a tokenizer of ours differs from upstream's.

  Attributes:
    text_len: tokens per prompt, padding included.
    words: split into lower-case words, numbers and signs first; for models
      whose vocabulary is a short list of words.
  """

  text_len: int = 512
  words: bool = False


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """`ids, mask = tokenizer(prompts)`; make one with `Tokenizer.load`."""

  model: sentencepiece.SentencePieceProcessor
  settings: Settings = Settings()

  @classmethod
  def load(
    cls, path: str | os.PathLike, text_len: int | None = None
  ) -> 'Tokenizer':
    """Loads a SentencePiece model.

    Args:
      path: `spiece.model`, its folder, or a folder of Wan2.1 weights.
      text_len: overrides the tokens per prompt (512, or `settings.json`).

    Raises:
      UserError: nothing there, or no SentencePiece model with `</s>`.
    """
    file = _find(pathlib.Path(path))
    model = sentencepiece.SentencePieceProcessor()
    try:
      model.LoadFromSerializedProto(file.read_bytes())
    except OSError as error:
      reason = error.strerror
      raise UserError(f'cannot read tokenizer {file}: {reason}') from None
    except RuntimeError:
      raise UserError(f'{file} is not a SentencePiece model') from None
    if model.eos_id() < 0 or model.pad_id() < 0:
      raise UserError(f'the tokenizer {file} has no </s> or no <pad> token')
    settings = _read_settings(file.with_name(SETTINGS))
    if text_len is not None:
      settings = dataclasses.replace(settings, text_len=text_len)
    if settings.text_len < 1:
      raise UserError(f'text_len must be at least 1, not {settings.text_len}')
    return cls(model, settings)

  @property
  def vocab_size(self) -> int:
    """Number of token ids."""
    return self.model.vocab_size()

  def unknown_words(self, prompt: str) -> list[str]:
    """Words of a prompt that the vocabulary cannot spell, in order."""
    words = split_words(clean(prompt)).split()
    unknown = self.model.unk_id()
    known = {w: unknown not in self.model.encode(w) for w in words}
    return [word for word in known if not known[word]]

  def __call__(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenises prompts.

    A prompt of more than `text_len` tokens is cut, keeping the end token,
    with a warning. An empty one is the end token alone.

    Args:
      prompts: B texts, cleaned here.

    Returns:
      ids: int32 `[B, text_len]`, end token after the text, then padding.
      mask: bool `[B, text_len]`, True for tokens, False for padding.
    """
    length = self.settings.text_len
    ids = np.full((len(prompts), length), self.model.pad_id(), np.int32)
    mask = np.zeros((len(prompts), length), bool)
    for row, prompt in enumerate(prompts):
      text = clean(prompt)
      pieces = self.model.encode(
        split_words(text) if self.settings.words else text
      )
      if len(pieces) >= length:
        warnings.warn(
          f'the prompt has {len(pieces) + 1} tokens and is cut to {length}: '
          f'{text[:40]!r}...',
          UserNotice,
          stacklevel=2,
        )
      pieces = [*pieces[: length - 1], self.model.eos_id()]
      ids[row, : len(pieces)] = pieces
      mask[row, : len(pieces)] = True
    return ids, mask


def split_words(text: str) -> str:
  """Lower-case words, numbers and signs, separated by single spaces."""
  return ' '.join(re.findall(r'[^\W\d_]+|\d+|[^\w\s]|_', text.lower()))


def train_words(
  captions: Iterable[str], folder: str | os.PathLike, text_len: int
) -> Tokenizer:
  """Makes a word-level tokenizer of all words in `captions`.

  Ids as in UMT5: 0 `<pad>`, 1 `</s>`, 2 `<unk>` (any other word), then the
  words by falling frequency.

  Args:
    captions: texts that hold every word to know.
    folder: receives `spiece.model` and `settings.json`.
    text_len: tokens per prompt.

  Returns:
    The tokenizer.
  """
  folder = pathlib.Path(folder)
  lines = [split_words(clean(caption)) for caption in captions]
  words = {word for line in lines for word in line.split()}
  if not words:
    raise UserError('no captions to make a tokenizer of')
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / MODEL).open('wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=file,
      model_type='word',
      vocab_size=len(words) + 3,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      normalization_rule_name='identity',
      minloglevel=2,
    )
  settings = Settings(text_len=text_len, words=True)
  text = json.dumps(dataclasses.asdict(settings), indent=2)
  (folder / SETTINGS).write_text(text + '\n')
  return Tokenizer.load(folder)


def _find(path: pathlib.Path) -> pathlib.Path:
  """The SentencePiece file at or below `path`."""
  if path.is_file():
    return path
  for place in _PLACES:
    if (path / place / MODEL).is_file():
      return path / place / MODEL
  if not path.exists():
    raise UserError(f'no tokenizer at {path}')
  raise UserError(
    f'no {MODEL} in {path} (looked also in {", ".join(_PLACES[1:])})'
  )


def _read_settings(file: pathlib.Path) -> Settings:
  if not file.is_file():
    return Settings()
  try:
    values = json.loads(file.read_text(encoding='utf-8'))
    settings = Settings(**values)
    if type(settings.text_len) is not int or type(settings.words) is not bool:
      raise ValueError('text_len must be a number, words true or false')
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'cannot read tokenizer settings {file}: {error}') from None
  return settings
