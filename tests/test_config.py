"""Config files become dataclasses, or say in one line why not."""

import dataclasses
from typing import Any, Literal

import ml_collections
import pytest

from jaxvid import config as config_lib
from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Model:
  dim: int = 96
  dropout: float = 0.0
  patch: tuple[int, int, int] = (1, 2, 2)


@dataclasses.dataclass(frozen=True)
class Settings:
  prompt: str
  steps: tuple[float, ...] = (1000.0, 500.0)
  commit: Literal['clean', 'last'] = 'clean'
  memory_gb: float | None = None
  digits: int | str = 4
  explain: bool = False
  model: Model = dataclasses.field(default_factory=lambda: Model(dim=160))
  extra: Model | None = None
  anything: Any = None


def build(**values):
  return config_lib.from_dict(Settings, {'prompt': 'a ball', **values})


def test_defaults_and_conversions():
  made = build(steps=[1000, 750], memory_gb=4, model={'dropout': 1})
  assert made.steps == (1000.0, 750.0) and isinstance(made.steps[0], float)
  assert made.memory_gb == 4.0
  # A section keeps the defaults of its field, not of its class.
  assert made.model == Model(dim=160, dropout=1.0)
  assert build(extra={'dim': 3}).extra == Model(dim=3)
  assert build(digits='4322').digits == '4322'


def test_round_trip():
  made = build(extra={'dim': 3}, anything=(1, 'x'))
  assert config_lib.from_dict(Settings, config_lib.to_dict(made)) == made


@pytest.mark.parametrize(
  'values, message',
  [
    ({'promt': 'x'}, r'unknown key config\.promt\. Did you mean config\.pr'),
    ({'model': {'dmi': 1}}, r'config\.model\.dmi\. Did you mean .*\.dim'),
    ({'model': {'dim': 1.5}}, r'config\.model\.dim: expected int, got 1\.5'),
    ({'model': {'dim': True}}, r'config\.model\.dim: expected int'),
    ({'model': 3}, r'config\.model: expected a section'),
    ({'model': {'patch': (1, 2)}}, r'config\.model\.patch: expected tuple'),
    ({'steps': ('a',)}, r'config\.steps\[0\]: expected float'),
    ({'commit': 'clen'}, r"one of 'clean', 'last', got 'clen'; .*'clean'"),
    ({'memory_gb': 'x'}, r'expected float or none'),
    ({'prompt': None}, r'config\.prompt is required \(str\)'),
    ({'model': {'dim': None}}, r'config\.model\.dim is required'),
  ],
)
def test_bad_values_are_named(values, message):
  with pytest.raises(UserError, match=message) as error:
    build(**values)
  assert '\n' not in str(error.value)


def test_required_field():
  with pytest.raises(UserError, match=r'config\.prompt is required'):
    config_lib.from_dict(Settings, {})


def test_complete_gives_every_key_its_type():
  config = ml_collections.ConfigDict({'memory_gb': 2, 'model': {'dim': 8}})
  config.lock()
  config_lib.complete(Settings, config)
  assert set(config) == {f.name for f in dataclasses.fields(Settings)}
  config.memory_gb = 2.5
  config.prompt = 'text'
  config.model.dropout = 0.5
  config.anything = (1, 2)
  with pytest.raises(TypeError):
    config.explain = 'yes'
  assert config_lib.from_dict(Settings, config) == build(
    prompt='text',
    memory_gb=2.5,
    model={'dim': 8, 'dropout': 0.5},
    anything=(1, 2),
  )


def test_complete_keeps_references():
  config = ml_collections.ConfigDict({'prompt': 'a', 'digits': 2})
  config.extra = ml_collections.ConfigDict(
    {'dim': config.get_ref('digits') * 2}
  )
  config_lib.complete(Settings, config)
  config.digits = 5
  assert config.extra.dim == 10


def test_nearest():
  keys = ['model.depth', 'model.dim', 'schedule.digits']
  assert config_lib.nearest('model.dept', keys) == ' Did you mean model.depth?'
  assert 'schedule.digits' in config_lib.nearest('digts', keys)
  assert config_lib.nearest('zzz', ['b', 'a']) == ' Valid: a, b'
  assert config_lib.nearest('zzz', []) == ''
