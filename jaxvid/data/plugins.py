"""Functions of the user's own, named in a setting as `module:function`."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxvid.errors import UserError


def load(
  spec: str, known: Mapping[str, Callable[..., Any]], what: str
) -> Callable[..., Any]:
  """The function that a setting names.

  Args:
    spec: one of `known`, or `module:function` of anything importable.
    known: functions that come with the library, by name.
    what: the setting, for messages.

  Raises:
    UserError: nothing of this name.
  """
  if spec in known:
    return known[spec]
  module, colon, name = spec.partition(':')
  if not (colon and module and name):
    names = ''.join(f'{name}, ' for name in known)
    raise UserError(f'{what} must be {names}or module:function, not {spec!r}')
  try:
    found = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise UserError(f'{what} {spec!r}: {error}') from error
  if not callable(found):
    raise UserError(f'{what} {spec!r} is no function')
  return found
