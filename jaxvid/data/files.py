"""Output files that are either whole or not there."""

import contextlib
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from jaxvid.errors import UserError


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Turns an OSError of its body, e.g. a full disk, into one clear line."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or str(error)
    raise UserError(f'cannot write {path}: {reason}') from error


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike, keep: tuple[type[BaseException], ...] = ()
) -> Iterator[BinaryIO]:
  """Opens a new file beside `path` that takes its place at the end.

  Whoever fails leaves nothing behind, and an older file at `path` stays as
  it was. Only a killed process leaves the unfinished file, named with a dot.

  Args:
    path: the file to write; missing folders are made.
    keep: exceptions after which what was written is kept as the result.

  Raises:
    UserError: `path` cannot be written, or the disk is full.
  """
  path = pathlib.Path(path)
  part = _part(path)
  file = _create(path, part)
  try:
    try:
      yield file
    except keep:
      if part.stat().st_size:
        _finish(file, part, path)
      raise
    _finish(file, part, path)
  finally:
    with contextlib.suppress(OSError):
      file.close()
    part.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON for people: indented, a list of numbers per line.

  Numbers that JSON does not know (not a number, infinite) become null.

  Raises:
    UserError: `path` cannot be written.
  """
  text = json.dumps(_finite(value), indent=1)
  text = re.sub(
    r'\[\s+([^][{}"]*?)\s+\]', lambda m: f'[{" ".join(m[1].split())}]', text
  )
  with replacing(path) as file:
    file.write((text + '\n').encode())


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def check_writable(path: str | os.PathLike) -> None:
  """Raises UserError now if `path` could not be written later."""
  path = pathlib.Path(path)
  _create(path, _part(path)).close()
  _part(path).unlink()


def _part(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')


def _create(path: pathlib.Path, part: pathlib.Path) -> BinaryIO:
  with naming(path):
    if path.exists() and not path.is_file():
      raise UserError(f'cannot write {path}: it is not a regular file')
    if path.parent.exists() and not path.parent.is_dir():
      raise UserError(f'cannot write {path}: {path.parent} is not a folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(part, 'wb')


def _finish(file: BinaryIO, part: pathlib.Path, path: pathlib.Path) -> None:
  with naming(path):
    file.flush()
    os.fsync(file.fileno())  # Some disks say only now that they are full.
    file.close()
    os.replace(part, path)
