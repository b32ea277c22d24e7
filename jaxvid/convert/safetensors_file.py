"""Reads and writes `.safetensors` files one tensor at a time.

The format: 8 bytes with the length of a JSON header, the header (name ->
dtype, shape, byte range; `__metadata__` -> texts), then the raw bytes. Reading
maps the file into memory, so nothing is copied; writing streams, so a
checkpoint is never held twice.
"""

import contextlib
import json
import os
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxvid.errors import UserError
from jaxvid.storage import mapped

_DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'F8_E4M3': ml_dtypes.float8_e4m3fn,
  'F8_E5M2': ml_dtypes.float8_e5m2,
  'F8_E8M0': ml_dtypes.float8_e8m0fnu,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U64': np.uint64,
  'U32': np.uint32,
  'U16': np.uint16,
  'U8': np.uint8,
  'BOOL': np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8
_FAULTS = (
  AttributeError,
  LookupError,
  RecursionError,
  TypeError,
  ValueError,
)


def load(
  path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Maps a safetensors file into memory.

  Args:
    path: the file.

  Returns:
    Read-only arrays by name (see `mapped.release`), and the metadata.

  Raises:
    UserError: no such file, cut off, or not a safetensors file.
  """
  path = pathlib.Path(path)
  data = mapped.open_file(path)
  try:
    size = struct.unpack('<Q', data[:8].tobytes())[0]
    if size > len(data) - 8:
      raise ValueError('the header runs past the end of the file')
    header = json.loads(data[8 : 8 + size].tobytes())
    metadata = header.pop('__metadata__', {})
    body = data[8 + size :]
    tensors = {name: _tensor(body, entry) for name, entry in header.items()}
    return tensors, dict(metadata)
  except _FAULTS as error:
    raise UserError(
      f'cannot read {path}: it is cut off, damaged or no safetensors file '
      f'({error})'
    ) from None
  except struct.error:
    raise UserError(f'cannot read {path}: it is cut off') from None


def save(
  path: str | os.PathLike,
  tensors: Mapping[str, Any],
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes a safetensors file; it appears complete or not at all.

  Args:
    path: the file; an older one is replaced.
    tensors: arrays by name, of numpy or jax; copied one at a time.
    metadata: texts to keep with them.

  Raises:
    UserError: the file cannot be written.
  """
  path = pathlib.Path(path)
  header: dict[str, Any] = {}
  if metadata:
    header['__metadata__'] = dict(metadata)
  end = 0
  for name, x in tensors.items():
    size = int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize
    header[name] = {
      'dtype': _NAMES[np.dtype(x.dtype)],
      'shape': list(x.shape),
      'data_offsets': [end, end + size],
    }
    end += size
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % _ALIGNMENT)
  part = path.with_name(f'.{path.name}.part')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open('wb') as file:
      file.write(struct.pack('<Q', len(text)) + text)
      for x in tensors.values():
        _write(file, x)
    os.replace(part, path)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}') from error
  finally:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)


def _tensor(body: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
  """One tensor as a view of the file's bytes."""
  dtype = np.dtype(_DTYPES[entry['dtype']])
  shape = tuple(entry['shape'])
  start, end = entry['data_offsets']
  if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
    raise ValueError('sizes below zero')
  count = 1
  for n in shape:
    count *= n
  if end - start != count * dtype.itemsize:
    raise ValueError(f'a tensor of shape {shape} in {end - start} bytes')
  if end > len(body):
    raise ValueError('a tensor runs past the end of the file')
  return mapped.view(body[start:end], dtype).reshape(shape)


def _write(file, x: Any) -> None:
  """Writes one array in C order in pieces of bounded size."""
  array = np.asarray(x)
  if array.ndim == 0:
    array = array[None]
  row = max(1, array[:1].nbytes)
  rows = max(1, mapped.PIECE // row)
  for start in range(0, len(array), rows):
    piece = np.ascontiguousarray(array[start : start + rows])
    file.write(piece.reshape(-1).view(np.uint8).data)
  mapped.release(array)
