"""Bundles of parts that were trained apart."""

import pytest
import tiny_bundle

from jaxvid.errors import UserError
from jaxvid.tasks import bundle, ship


@pytest.fixture
def parts(tmp_path):
  return tiny_bundle.write(tmp_path).parent


def config(parts, **changes):
  places = {
    'target': str(parts / 'deep' / 'shipped'),
    'dit': str(parts / 'model'),
    'tae': str(parts / 'tae'),
    'tokenizer': str(parts / 'tokenizer'),
    'size': (16, 32),
  }
  return ship.Config(**(places | changes))


def test_a_bundle_is_made_of_its_parts_and_may_move(parts, capsys):
  ship.run(config(parts))
  assert 'shipped (dit, tae, text, tokenizer)' in capsys.readouterr().out
  moved = parts.rename(parts.with_name('moved'))
  opened = bundle.open_bundle(str(moved / 'deep' / 'shipped'))
  assert opened.kinds == {'dit', 'text', 'tae'} and opened.size == (16, 32)
  assert opened.configure('dit') == tiny_bundle.DIT


def test_half_a_bundle_is_not_left_behind(parts):
  for changes, message in (
    ({'vae': str(parts / 'nothing')}, 'no vae at'),
    ({'text': str(parts / 'tae')}, 'does not describe a text'),
    ({'tokenizer': str(parts / 'tae')}, 'no spiece.model in'),
  ):
    with pytest.raises(UserError, match=message):
      ship.run(config(parts, **changes))
    assert not (parts / 'deep' / 'shipped' / 'config.json').exists()
