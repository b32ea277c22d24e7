"""A pickle reader that builds plain data and can execute nothing.

Python's own unpickler imports and calls whatever a file names. This one is a
small stack machine over `pickletools.genops`: it knows the opcodes that build
containers, numbers and strings; a global name is looked up in a table given
by the caller and refused when it is not there. Nothing is imported, nothing
is called except the functions of that table, no attribute is ever set.
"""

import collections
import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Function:
  """A callable of ours that stands for a global name in a pickle."""

  call: Callable[..., Any]


class Damaged(ValueError):
  """The pickle is not well formed."""


_MARK = object()
_FAULTS = (
  ArithmeticError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
)

# Opcodes whose decoded argument is the value itself.
_LITERALS = frozenset(
  'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE '
  'BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES '
  'BINBYTES8 BYTEARRAY8 STRING BINSTRING SHORT_BINSTRING'.split()
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {
  'EMPTY_LIST': list,
  'EMPTY_DICT': dict,
  'EMPTY_SET': set,
  'EMPTY_TUPLE': tuple,
}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_IGNORED = frozenset(('PROTO', 'FRAME', 'STOP'))
_FROM_MARK = {
  'TUPLE': tuple,
  'LIST': list,
  'FROZENSET': lambda items: unordered(items),
  'DICT': lambda items: _pairs(items),
}


def read(
  data: bytes,
  names: Mapping[str, Any],
  persistent: Callable[[Any], Any],
) -> Any:
  """Reads one pickle into plain Python data.

  Args:
    data: the pickle's bytes, any protocol.
    names: `'module name'` -> what stands for that global: a `Function` (may
      be called by the pickle) or any constant.
    persistent: turns a persistent id into a value.

  Returns:
    The object described by the pickle.

  Raises:
    UserError: the pickle names a global outside `names`, or uses an opcode
      that would build objects of other classes.
    Damaged: the pickle is cut off or not well formed.
  """
  stack: list[Any] = []
  memo: dict[int, Any] = {}
  try:
    for opcode, arg, _ in pickletools.genops(data):
      _step(opcode.name, arg, stack, memo, names, persistent)
  except _FAULTS as error:
    raise Damaged(str(error) or type(error).__name__) from error
  if len(stack) != 1:
    raise Damaged('unbalanced pickle')
  return stack[0]


def _step(name, arg, stack, memo, names, persistent) -> None:
  """Executes one opcode on `stack` and `memo`."""
  if name in _LITERALS:
    stack.append(arg)
  elif name in _CONSTANTS:
    stack.append(_CONSTANTS[name])
  elif name in _EMPTY:
    stack.append(_EMPTY[name]())
  elif name in _TUPLES:
    count = _TUPLES[name]
    if len(stack) < count:
      raise Damaged('stack underflow')
    stack[-count:] = [tuple(stack[-count:])]
  elif name in _FROM_MARK:
    stack.append(_FROM_MARK[name](_pop_to_mark(stack)))
  elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
    memo[arg] = stack[-1]
  elif name == 'MEMOIZE':
    memo[len(memo)] = stack[-1]
  elif name in ('GET', 'BINGET', 'LONG_BINGET'):
    stack.append(memo[arg])
  elif name in ('GLOBAL', 'STACK_GLOBAL'):
    stack.append(_global(name, arg, stack, names))
  elif name in ('PERSID', 'BINPERSID'):
    stack.append(persistent(arg if name == 'PERSID' else stack.pop()))
  elif name == 'MARK':
    stack.append(_MARK)
  elif name not in _IGNORED:
    _change(name, stack)


def _global(opcode: str, arg: Any, stack: list, names: Mapping) -> Any:
  """Looks a global name up in the table; never imports."""
  if opcode == 'STACK_GLOBAL':
    attribute, module = stack.pop(), stack.pop()
  else:
    module, attribute = arg.split(' ', 1)
  if not isinstance(module, str) or not isinstance(attribute, str):
    raise Damaged('a global name that is not text')
  if f'{module} {attribute}' not in names:
    raise UserError(
      f'it asks for {module}.{attribute}; only tensors, numbers, strings and '
      'plain containers are read, and nothing in a pickle is ever run'
    )
  return names[f'{module} {attribute}']


def _change(name: str, stack: list) -> None:
  """Opcodes that fill a container, call a function or drop a value."""
  if name == 'SETITEM':
    value, key = stack.pop(), stack.pop()
    _container(stack, dict).update(_pairs([key, value]))
  elif name == 'SETITEMS':
    items = _pop_to_mark(stack)
    _container(stack, dict).update(_pairs(items))
  elif name == 'APPEND':
    value = stack.pop()
    _container(stack, list).append(value)
  elif name == 'APPENDS':
    values = _pop_to_mark(stack)
    _container(stack, list).extend(values)
  elif name == 'ADDITEMS':
    values = _pop_to_mark(stack)
    _container(stack, set).update(unordered(values))
  elif name == 'REDUCE':
    args, function = stack.pop(), stack.pop()
    if not isinstance(function, Function) or not isinstance(args, tuple):
      raise Damaged('a call of something that is not a function')
    stack.append(function.call(*args))
  elif name == 'BUILD':
    # State dicts carry their `_metadata` this way; it is not needed.
    stack.pop()
    _container(stack, collections.OrderedDict)
  elif name == 'POP':
    stack.pop()
  elif name == 'POP_MARK':
    _pop_to_mark(stack)
  elif name == 'DUP':
    stack.append(stack[-1])
  else:
    raise UserError(
      f'it uses the pickle instruction {name}, which builds objects; only '
      'tensors, numbers, strings and plain containers are read'
    )


def _container(stack: list, kind: type) -> Any:
  if not isinstance(stack[-1], kind):
    raise Damaged(f'items for something that is not a {kind.__name__}')
  return stack[-1]


def _pop_to_mark(stack: list) -> list:
  for i in range(len(stack) - 1, -1, -1):
    if stack[i] is _MARK:
      items = stack[i + 1 :]
      del stack[i:]
      return items
  raise Damaged('no mark on the stack')


def ordered(pairs: Any = ()) -> collections.OrderedDict:
  """An `OrderedDict` of `[key, value]` pairs."""
  items = [item for pair in pairs for item in pair]
  return collections.OrderedDict(_pairs(items))


def unordered(items: Any = ()) -> set:
  """A set of plain keys (frozen or not: nobody changes it afterwards)."""
  return {_key(item) for item in items}


def _pairs(items: list) -> dict:
  keys = map(_key, items[::2])
  return dict(zip(keys, items[1::2], strict=True))


def _key(value: Any) -> Any:
  """A plain key; hashing a deep tuple could exhaust the stack."""
  for part in value if isinstance(value, tuple) else (value,):
    if not isinstance(part, str | bytes | int | float | type(None)):
      raise Damaged('a dictionary key that is not plain')
  return value
