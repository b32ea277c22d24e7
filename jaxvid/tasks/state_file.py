"""Saved streams: one file, whole or not there, that fits one model only."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.parallel.mesh import leaf_name
from jaxvid.stream.session import Snapshot
from jaxvid.stream.state import Settings

FORMAT = 'jaxvid-stream-1'
_FAULTS = (
  zipfile.BadZipFile,
  zlib.error,
  ValueError,
  KeyError,
  TypeError,
  EOFError,
  AttributeError,
  NotImplementedError,
)


def fingerprint(*trees: Any) -> str:
  """Tells models apart: a checksum of all their parameters, bit for bit."""
  return '-'.join(f'{int(x):08x}' for x in map(_checksum, trees))


@jax.jit
def _checksum(tree: Any) -> jax.Array:
  total = jnp.uint32(len(jax.tree.leaves(tree)))
  for leaf in jax.tree.leaves(tree):
    if leaf.dtype == jnp.bool_:
      leaf = leaf.astype(jnp.uint8)
    bits = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
    words = jax.lax.bitcast_convert_type(leaf, bits).astype(jnp.uint32)
    # Odd factors, so that two numbers that change places are noticed.
    place = 2 * jax.lax.iota(jnp.uint32, words.size) + 1
    total = total * jnp.uint32(1664525) + jnp.sum(words.reshape(-1) * place)
  return total


def describe(settings: Settings) -> dict[str, Any]:
  """What has to be the same for a stream to go on; JSON."""
  whole = dataclasses.asdict(settings)
  return json.loads(json.dumps(whole, default=str))


def save(
  path: str | pathlib.Path,
  snapshot: Snapshot,
  settings: Settings,
  model: str,
  more: Mapping[str, Any],
) -> None:
  """Writes a snapshot.

  Args:
    path: the file; an older one stays until the new one is complete.
    snapshot: of a session.
    settings: of its stream.
    model: `fingerprint` of its parameters.
    more: JSON values to find again.

  Raises:
    UserError: the file cannot be written.
  """
  leaves = jax.tree.leaves_with_path(snapshot)
  arrays = {str(i): np.asarray(leaf) for i, (_, leaf) in enumerate(leaves)}
  head = {
    'format': FORMAT,
    'settings': describe(settings),
    'model': model,
    'chunk': snapshot.chunk,
    'first': snapshot.first,
    'starts': snapshot.starts,
    'pending': snapshot.state.pending is not None,
    'leaves': [leaf_name(path) for path, _ in leaves],
    'types': [x.dtype.name for x in arrays.values()],
    'shapes': [x.shape for x in arrays.values()],
    'more': dict(more),
  }
  raw = {name: _bytes(x) for name, x in arrays.items()}
  text = np.frombuffer(json.dumps(head).encode(), np.uint8)
  with files.replacing(path) as file:
    np.savez(file, head=text, **raw)


def _bytes(x: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


@dataclasses.dataclass(frozen=True)
class Saved:
  """What a file holds.

  Attributes:
    path: for messages.
    head: everything but arrays.
    arrays: in the order of the snapshot's leaves.
  """

  path: str
  head: Mapping[str, Any]
  arrays: Sequence[np.ndarray]

  @property
  def more(self) -> Mapping[str, Any]:
    """The values that `save` was given."""
    return self.head['more']


def read_head(path: str | pathlib.Path) -> dict[str, Any]:
  """Everything but the arrays of a file; errors as of `load`."""
  with _reading(path) as data:
    return _head(data)


def load(path: str | pathlib.Path) -> Saved:
  """Reads and verifies a file.

  Raises:
    UserError: there is none, or it is damaged or something else.
  """
  with _reading(path) as data:
    head = _head(data)
    types = zip(head['types'], head['shapes'], strict=True)
    arrays = [
      data[str(i)].view(jnp.dtype(name)).reshape(shape)
      for i, (name, shape) in enumerate(types)
    ]
  return Saved(str(path), head, arrays)


def _head(data) -> dict[str, Any]:
  head = json.loads(bytes(data['head']))
  if head['format'] != FORMAT:
    raise ValueError(f'format {head["format"]!r}')
  return head


@contextlib.contextmanager
def _reading(path: str | pathlib.Path):
  """Opens a file; whatever is wrong with it becomes one clear line."""
  path = pathlib.Path(path).expanduser()
  try:
    # Opened here: a damaged file would stay open.
    with path.open('rb') as file, np.load(file, allow_pickle=False) as data:
      yield data
  except OSError as error:
    reason = error.strerror or 'not readable'
    raise UserError(f'cannot read the stream {path}: {reason}') from error
  except _FAULTS as error:
    raise UserError(
      f'{path} is no saved stream, or a damaged one ({_line(error)})'
    ) from error


def _line(error: Exception) -> str:
  return ' '.join(str(error).split())[:120] or type(error).__name__


def restore(
  saved: Saved, settings: Settings, model: str, template: Snapshot
) -> Snapshot:
  """The snapshot of a file, for `Session.resume`.

  Args:
    saved: from `load`.
    settings: of the stream that is to go on.
    model: its `fingerprint`.
    template: a snapshot of that stream, of any moment (arrays or shapes);
      `waiting` may have any length.

  Raises:
    UserError: the file is of another model or of another kind of stream.
  """
  other = _difference(saved.head['settings'], describe(settings))
  if other:
    raise UserError(f'{saved.path} is of another stream: {other}')
  if saved.head['model'] != model:
    raise UserError(f'{saved.path} is of another model: its weights differ')
  leaves = jax.tree.leaves_with_path(template)
  names = [leaf_name(path) for path, _ in leaves]
  if names != saved.head['leaves']:
    raise UserError(f'{saved.path} is of another stream: other arrays')
  for (_, leaf), name, x in zip(leaves, names, saved.arrays, strict=True):
    same = leaf.dtype == x.dtype and leaf.shape == x.shape
    if not same and name != 'waiting':
      raise UserError(
        f'{saved.path} is of another stream: {name} is {x.dtype}{x.shape}, '
        f'not {leaf.dtype}{leaf.shape}'
      )
  snapshot = jax.tree.unflatten(jax.tree.structure(template), saved.arrays)
  head = saved.head
  return snapshot.replace(
    chunk=head['chunk'],
    first=head['first'],
    # Files from before it existed lack it.
    starts=tuple(head.get('starts', (0,))),
  )


def _difference(saved: Any, now: Any, name: str = '') -> str:
  """`memory.window 9, not 6`: the first setting that differs, or ''."""
  if isinstance(saved, dict) and isinstance(now, dict):
    parts = (
      _difference(saved.get(key), now.get(key), f'{name}.{key}'.strip('.'))
      for key in {**saved, **now}
    )
    return next(filter(None, parts), '')
  if saved == now:
    return ''
  shown = functools.partial(json.dumps, ensure_ascii=False)
  return f'{name} {shown(saved)[:60]}, not {shown(now)[:60]}'
