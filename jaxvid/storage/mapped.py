"""Files mapped into memory: read when touched, given back when told."""

import mmap
import pathlib
from typing import Any

import numpy as np

from jaxvid.errors import UserError

# Bytes worked on at a time where a whole tensor would be too much.
PIECE = 1 << 22


def open_file(path: pathlib.Path) -> np.ndarray:
  """The bytes of a file, `[n]` uint8, read-only.

  Raises:
    UserError: the file is missing, empty or cannot be read.
  """
  try:
    with path.open('rb') as file:
      if not file.read(1):
        raise UserError(f'cannot read {path}: the file is empty')
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except FileNotFoundError:
    raise UserError(f'no such file: {path}') from None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from None
  return np.frombuffer(data, np.uint8)


def view(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Bytes `[n]` as numbers; copied only where they are not aligned."""
  if data.ctypes.data % dtype.alignment:
    data = data.copy()
  return data.view(dtype)


def release(array: np.ndarray) -> None:
  """Gives the pages of the file behind an array back to the system.

  The array stays valid: pages are read again when touched. Does nothing for
  ordinary arrays.
  """
  owner: Any = array
  while owner is not None and not isinstance(owner, mmap.mmap):
    if isinstance(owner, memoryview):
      owner = owner.obj
    else:
      owner = getattr(owner, 'base', None)
  if owner is not None and hasattr(mmap, 'MADV_DONTNEED'):
    owner.madvise(mmap.MADV_DONTNEED)


def equal(a: np.ndarray, b: np.ndarray) -> bool:
  """Whether two arrays hold the same, without a copy of either."""
  if a.shape != b.shape or a.dtype != b.dtype:
    return False
  rows = max(1, PIECE // max(1, a[:1].nbytes))
  pieces = range(0, len(a), rows)
  return all(np.array_equal(a[i : i + rows], b[i : i + rows]) for i in pieces)
