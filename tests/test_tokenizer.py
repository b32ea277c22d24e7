"""Prompt cleaning and tokenising."""

import json
import pathlib

import numpy as np
import pytest

import jaxvid
from jaxvid.data import tokenizer
from jaxvid.data.shapes import captions, scene
from jaxvid.errors import UserError

CAPTIONS = (
  'A red circle moves left.',
  'a large blue square, slowly bouncing',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'new'
  tokenizer.train_words(CAPTIONS, path, 12)
  return path


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('  a  red\r\n ball\t', 'a red ball'),
    ('静态，细节！（好）。', '静态,细节!(好)。'),
    ('“quoted” ｆｕｌｌ\u3000width', '"quoted" full width'),
    ('&amp;lt;b&amp;gt; fish &amp; chips', '<b> fish & chips'),
    ('ﬁne \x1b[31mred\x1b[0m \x07', 'fine red'),
    ('schÃ¶n', 'schön'),
    ('e\u0301t\u00e9', 'été'),
    ('Case STAYS', 'Case STAYS'),
    ('\u2028&nbsp; ', ''),
  ],
)
def test_clean(text, expected):
  assert tokenizer.clean(text) == expected


def test_ids_end_token_padding_and_mask(folder):
  tokens = tokenizer.Tokenizer.load(folder)
  ids, mask = tokens(['A RED circle, moves left', ''])
  assert ids.shape == mask.shape == (2, 12)
  assert ids.dtype == np.int32 and mask.dtype == bool
  names = [tokens.model.id_to_piece(int(i)) for i in ids[0][mask[0]]]
  assert names == ['▁a', '▁red', '▁circle', '▁,', '▁moves', '▁left', '</s>']
  assert not ids[0, 7:].any()
  assert ids[1].tolist() == [1] + [0] * 11 and mask[1].sum() == 1


def test_a_run_of_unknown_words_is_one_token_and_named(folder):
  tokens = tokenizer.Tokenizer.load(folder)
  ids, mask = tokens(['a red ball jumps'])
  assert ids[0][mask[0]].tolist() == [3, 12, 2, 1]
  assert tokens.unknown_words('a red ball jumps, ball') == ['ball', 'jumps']


def test_long_prompt_is_cut_with_a_warning(folder):
  tokens = tokenizer.Tokenizer.load(folder)
  with pytest.warns(UserWarning, match='has 13 tokens and is cut to 12'):
    ids, mask = tokens(['red ' * 12])
  assert mask.all() and ids[0, -1] == 1
  ids, mask = tokens(['red ' * 11])  # Exactly full: no warning.
  assert mask.all() and ids[0, -1] == 1
  with pytest.warns(UserWarning, match='601 tokens and is cut to 512'):
    ids, _ = tokenizer.Tokenizer.load(folder, text_len=512)(['red ' * 600])
  assert ids.shape == (1, 512)


def test_training_is_repeatable(folder, tmp_path):
  tokenizer.train_words(CAPTIONS, tmp_path, 12)
  for name in (tokenizer.MODEL, tokenizer.SETTINGS):
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_upstream_folder_needs_no_settings(folder, tmp_path):
  place = tmp_path / 'google' / 'umt5-xxl'
  place.mkdir(parents=True)
  (place / 'spiece.model').write_bytes((folder / 'spiece.model').read_bytes())
  tokens = tokenizer.Tokenizer.load(tmp_path)
  assert tokens.settings == tokenizer.Settings(text_len=512, words=False)
  # Without `words`, case and punctuation reach SentencePiece as they are.
  assert tokens(['Red'])[0][0, 0] == 2


def test_bad_tokenizers_are_refused(tmp_path):
  with pytest.raises(UserError, match='no tokenizer at'):
    tokenizer.Tokenizer.load(tmp_path / 'nowhere')
  with pytest.raises(UserError, match=r'no spiece\.model in'):
    tokenizer.Tokenizer.load(tmp_path)
  (tmp_path / 'spiece.model').write_bytes(b'not a model')
  with pytest.raises(UserError, match='is not a SentencePiece model'):
    tokenizer.Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
  'settings', ['{', '[]', '{"text_len": "x"}', '{"texts": 3}']
)
def test_bad_settings_are_refused(folder, tmp_path, settings):
  model = (folder / tokenizer.MODEL).read_bytes()
  (tmp_path / tokenizer.MODEL).write_bytes(model)
  (tmp_path / tokenizer.SETTINGS).write_text(settings)
  with pytest.raises(UserError, match='tokenizer settings'):
    tokenizer.Tokenizer.load(tmp_path)
  (tmp_path / tokenizer.SETTINGS).write_text(json.dumps({'text_len': 0}))
  with pytest.raises(UserError, match='at least 1'):
    tokenizer.Tokenizer.load(tmp_path)


def test_empty_prompt():
  assert tokenizer.check_prompt('  a  ball ') == 'a ball'
  for prompt in ('', ' \n', '&nbsp;'):
    with pytest.raises(UserError, match='prompt is empty'):
      tokenizer.check_prompt(prompt)


def test_shipped_tokenizer_knows_every_caption():
  weights = pathlib.Path(jaxvid.__file__).parent / 'weights'
  tokens = tokenizer.Tokenizer.load(weights / 'shapes_tokenizer')
  assert tokens.vocab_size <= 256
  rng = np.random.default_rng(5)
  texts = []
  for _ in range(50):
    drawn = scene.sample_scene(rng, scene.SceneSettings(split='all'))
    texts += captions.captions(drawn, 4, rng)
  ids, mask = tokens(texts)
  assert not np.any(ids == tokens.model.unk_id())
  assert mask.sum(1).min() > 4 and mask.shape[1] == 48
  assert tokens.unknown_words('a Big red DRAGON moving left') == ['dragon']
