"""Config files -> ConfigDict -> frozen dataclasses, once, with clear errors.

Library code never sees a ConfigDict: a task states its settings as a frozen
dataclass, `complete` shows the command line every key of it, and `from_dict`
builds it strictly.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union

from jaxvid.errors import UserError

_LEAVES = (bool, int, float, str, tuple)


def nearest(name: str, names: Iterable[str]) -> str:
  """' Did you mean ...?' for the closest of `names`, else what is valid.

  A name is also found by its last part: `promt` finds `stream.prompt`, and
  `demo` finds `configs/demo.py`.
  """
  names = list(names)
  close = difflib.get_close_matches(name, names, 1, 0.6)
  if not close:
    last = {_last_part(n): n for n in reversed(names)}
    found = difflib.get_close_matches(_last_part(name), list(last), 1, 0.6)
    close = [last[f] for f in found]
  if close:
    return f' Did you mean {close[0]}?'
  if not names:
    return ''
  more = ', ...' if len(names) > 12 else ''
  return f' Valid: {", ".join(sorted(names)[:12])}{more}'


def _last_part(name: str) -> str:
  return re.split('[./]', name.removesuffix('.py'))[-1]


def complete(cls: Any, config, path: str = 'config', base: Any = None) -> None:
  """Gives a ConfigDict, in place, every key and type of the dataclass.

  Afterwards each setting can be overridden, and a typed parser reads it:
  `None` becomes a placeholder of the right type, an int for a float a float.

  Args:
    cls: frozen dataclass.
    config: its (partial) ConfigDict.
    path: dotted name of `config`, for messages.
    base: instance of `cls` that holds the defaults, if not the class's own.
  """
  from ml_collections import config_dict  # Needed on the command line only.

  fields = {f.name: f for f in dataclasses.fields(cls)}
  _check_keys(config, fields, path)
  hints = typing.get_type_hints(cls)
  with config.unlocked(), config.ignore_type():
    for name, field in fields.items():
      hint = _strip_optional(hints[name])
      default = _default(field, base)
      if name not in config:
        config[name] = _plain(default)
      value = config[name]
      if value is None and dataclasses.is_dataclass(hints[name]):
        config[name] = value = config_dict.ConfigDict({})
      if isinstance(value, config_dict.ConfigDict):
        if dataclasses.is_dataclass(hint):
          complete(hint, value, f'{path}.{name}', default)
      elif value is None:
        leaf = typing.get_origin(hint) or hint
        leaf = leaf if leaf in _LEAVES else object
        config[name] = config_dict.placeholder(leaf)
      elif hint is float and type(value) is int:
        config[name] = float(value)
      elif isinstance(value, list):
        config[name] = tuple(value)


def from_dict[T](cls: type[T], config: Any) -> T:
  """Builds a (nested) dataclass from a dict or ConfigDict, strictly.

  Args:
    cls: dataclass whose fields are bool, int, float, str, tuples, dicts,
      literals, unions of those, or dataclasses.
    config: values by field name; missing ones take their defaults.

  Returns:
    The dataclass; lists became tuples, ints for floats floats.

  Raises:
    UserError: an unknown key (the nearest is named), a value of another type,
      or a missing one without a default.
  """
  if hasattr(config, 'to_dict'):
    config = config.to_dict()
  return _build(cls, config, 'config')


def to_dict(settings: Any) -> dict[str, Any]:
  """Plain nested dict of a dataclass, for logs and checkpoints."""
  return dataclasses.asdict(settings)


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Dotted keys -> leaves, e.g. `{'model.depth': 12}`."""
  flat = {}
  for key, value in config.items():
    if hasattr(value, 'items') and len(value):
      flat.update(flatten(value, f'{prefix}{key}.'))
    else:
      flat[prefix + key] = value
  return flat


def _check_keys(config, fields, path):
  for key in config.keys():
    if key not in fields:
      name = f'{path}.{key}'
      valid = [f'{path}.{field}' for field in fields]
      raise UserError(f'unknown key {name}.{nearest(name, valid)}')


def _default(field: dataclasses.Field, base: Any = None):
  """What a missing field becomes; None where it has no default."""
  if base is not None:
    return getattr(base, field.name)
  if field.default is not dataclasses.MISSING:
    return field.default
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return None


def _plain(value: Any):
  """A dataclass as a dict (one inside a tuple stays)."""
  if not dataclasses.is_dataclass(value):
    return value
  fields = dataclasses.fields(value)
  return {f.name: _plain(getattr(value, f.name)) for f in fields}


def _strip_optional(hint: Any):
  options = [a for a in _options(hint) if a is not types.NoneType]
  return options[0] if len(options) == 1 else hint


def _options(hint: Any) -> Sequence[Any]:
  union = typing.get_origin(hint) in (Union, types.UnionType)
  return typing.get_args(hint) if union else (hint,)


def _build(cls: Any, config, path: str, base: Any = None):
  fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
  _check_keys(config, fields, path)
  hints = typing.get_type_hints(cls)
  values = {}
  for name, field in fields.items():
    default = _default(field, base)
    value = config.get(name, default)
    if value is None and not _allows_none(hints[name]):
      what = _describe(hints[name])
      raise UserError(f'{path}.{name} is required ({what})')
    if isinstance(value, Mapping) and dataclasses.is_dataclass(default):
      hint = type(default)
      values[name] = _build(hint, value, f'{path}.{name}', default)
    else:
      values[name] = _convert(hints[name], value, f'{path}.{name}')
  return cls(**values)


def _allows_none(hint: Any) -> bool:
  return any(a in (types.NoneType, Any) for a in _options(hint))


def _convert(hint, value, path):
  """One value as its type asks, or a UserError that names both."""
  for option in _options(hint):
    done, result = _try(option, value, path)
    if done:
      return result
  near = ''
  choices = [c for o in _options(hint) for c in _choices(o)]
  if isinstance(value, str) and choices:
    close = difflib.get_close_matches(value, map(str, choices), 1)
    near = f'; did you mean {close[0]!r}?' if close else ''
  raise UserError(f'{path}: expected {_describe(hint)}, got {value!r}{near}')


def _try(hint: Any, value: Any, path: str) -> tuple[bool, Any]:
  """(whether `value` is a `hint`, the value converted)."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True, value
  if hint is types.NoneType:
    return value is None, None
  if origin is Literal:
    return any(value == c and type(value) is type(c) for c in args), value
  if dataclasses.is_dataclass(hint):
    if type(value) is hint:
      return True, value
    if isinstance(value, Mapping):
      return True, _build(hint, value, path)
    return False, None
  if (origin or hint) in (tuple, list, Sequence):
    return _try_sequence(origin or hint, args, value, path)
  if (origin or hint) in (dict, Mapping):
    if not isinstance(value, Mapping):
      return False, None
    inner = args[1] if args else Any
    return True, {
      k: _convert(inner, v, f'{path}.{k}') for k, v in value.items()
    }
  if hint is float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number, float(value) if number else None
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool), value
  return isinstance(value, hint), value


def _try_sequence(kind, args, value, path):
  if not isinstance(value, tuple | list):
    return False, None
  if kind is tuple and args and args[-1] is not Ellipsis:
    if len(value) != len(args):
      return False, None
    inner = args
  else:
    inner = [args[0] if args else Any] * len(value)
  items = [
    _convert(h, v, f'{path}[{i}]')
    for i, (h, v) in enumerate(zip(inner, value, strict=True))
  ]
  return True, items if kind is list else tuple(items)


def _choices(hint):
  return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _describe(hint: Any) -> str:
  """A type as one would say it: 'int', 'one of 'a', 'b'', 'int or none'."""
  words = []
  for option in _options(hint):
    if option is types.NoneType:
      words.append('none')
    elif typing.get_origin(option) is Literal:
      words.append('one of ' + ', '.join(map(repr, _choices(option))))
    elif typing.get_origin(option):
      words.append(str(option).replace('typing.', ''))
    elif dataclasses.is_dataclass(option):
      words.append('a section of keys')
    else:
      words.append(getattr(option, '__name__', str(option)))
  return ' or '.join(words)
