"""Reads torch checkpoints (`.pt`, `.pth`) without torch.

A checkpoint is an uncompressed zip archive: one pickle that describes
containers and tensors, and one entry of raw bytes for every storage. The
pickle goes through `plain_pickle`; the bytes are memory-mapped, so that
reading costs no memory until a tensor is touched (`mapped.release` gives the
touched pages back).
"""

import dataclasses
import functools
import os
import pathlib
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from jaxvid.convert import plain_pickle
from jaxvid.convert.plain_pickle import Damaged, Function
from jaxvid.errors import UserError
from jaxvid.storage import mapped

_DTYPES = {
  'float64': np.float64,
  'double': np.float64,
  'float32': np.float32,
  'float': np.float32,
  'float16': np.float16,
  'half': np.float16,
  'bfloat16': ml_dtypes.bfloat16,
  'float8_e4m3fn': ml_dtypes.float8_e4m3fn,
  'float8_e4m3fnuz': ml_dtypes.float8_e4m3fnuz,
  'float8_e5m2': ml_dtypes.float8_e5m2,
  'float8_e5m2fnuz': ml_dtypes.float8_e5m2fnuz,
  'float8_e8m0fnu': ml_dtypes.float8_e8m0fnu,
  'int64': np.int64,
  'long': np.int64,
  'int32': np.int32,
  'int': np.int32,
  'int16': np.int16,
  'short': np.int16,
  'int8': np.int8,
  'uint8': np.uint8,
  'uint16': np.uint16,
  'uint32': np.uint32,
  'uint64': np.uint64,
  'bool': np.bool_,
  'complex64': np.complex64,
  'complex128': np.complex128,
}
_STORAGES = {
  'Double': np.float64,
  'Float': np.float32,
  'Half': np.float16,
  'BFloat16': ml_dtypes.bfloat16,
  'Long': np.int64,
  'Int': np.int32,
  'Short': np.int16,
  'Char': np.int8,
  'Byte': np.uint8,
  'Bool': np.bool_,
  'ComplexFloat': np.complex64,
  'ComplexDouble': np.complex128,
  'Untyped': np.uint8,
}


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Raw bytes of one storage and the type that the file gives them."""

  data: np.ndarray
  dtype: np.dtype


def load(path: str | os.PathLike) -> Any:
  """Reads a torch checkpoint into plain containers and numpy arrays.

  Args:
    path: a file written by `torch.save` (torch 1.6 or later).

  Returns:
    The saved object. Tensors are read-only numpy arrays mapped to the file
    (bfloat16 and float8 by ml_dtypes), parameters are plain arrays.

  Raises:
    UserError: no such file, not a torch zip file, cut off or damaged, or a
      pickle that asks for anything but tensors and plain data.
  """
  path = pathlib.Path(path)
  data = _open(path)
  try:
    entries = _entries(path, data)
    roots = [n for n in entries if n.partition('/')[2] == 'data.pkl']
    if len(roots) != 1:
      raise UserError('it is a zip archive, but not a torch checkpoint')
    root = roots[0].removesuffix('data.pkl')
    order = entries.get(root + 'byteorder')
    if order is not None and order.tobytes() != b'little':
      raise UserError('it was saved on a big-endian machine')
    return plain_pickle.read(
      entries[roots[0]].tobytes(),
      _names(),
      functools.partial(_storage, entries, root + 'data/'),
    )
  except UserError as error:
    raise UserError(f'cannot read {path}: {error}') from None
  except (Damaged, zipfile.BadZipFile, struct.error) as error:
    raise UserError(
      f'cannot read {path}: it is cut off or damaged ({error})'
    ) from None


def _open(path: pathlib.Path) -> np.ndarray:
  """The bytes of the file, after a look at the first ones."""
  data = mapped.open_file(path)
  head = data[:512].tobytes()
  if head.startswith(b'PK\x03\x04'):
    return data
  if head.startswith(b'\x80') or head[257:262] == b'ustar':
    raise UserError(
      f'cannot read {path}: it is in the format of torch before 1.6 (or a '
      'bare pickle); load and save it again with a recent torch'
    )
  raise UserError(f'cannot read {path}: it is not a torch checkpoint')


def _entries(path: pathlib.Path, data: np.ndarray) -> dict[str, np.ndarray]:
  """Every entry of the archive as a view of the mapped file."""
  entries = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError(
          f'its entry {info.filename} is compressed or encrypted, which '
          'torch never writes'
        )
      header = data[info.header_offset :][:30].tobytes()
      if header[:4] != b'PK\x03\x04':
        raise Damaged(f'no entry where {info.filename} should start')
      start = info.header_offset + 30 + sum(struct.unpack('<HH', header[26:]))
      entry = data[start : start + info.file_size]
      if len(entry) != info.file_size:
        raise Damaged(f'{info.filename} runs past the end of the file')
      entries[info.filename] = entry
  return entries


def _storage(entries: dict, prefix: str, persistent_id: Any) -> _Storage:
  """Resolves `('storage', type, key, location, count)`."""
  if not isinstance(persistent_id, tuple) or len(persistent_id) != 5:
    raise Damaged('a persistent id that is not a storage')
  tag, dtype, key, _, count = persistent_id
  if tag != 'storage' or not isinstance(dtype, np.dtype):
    raise Damaged('a persistent id that is not a storage')
  data = entries.get(f'{prefix}{key}')
  if data is None:
    raise Damaged(f'storage {key} is missing')
  if not isinstance(count, int) or count * dtype.itemsize > len(data):
    raise Damaged(f'storage {key} is shorter than its {count} numbers')
  return _Storage(data, dtype)


def _tensor(
  storage: _Storage,
  offset: int,
  size: Sequence[int],
  stride: Sequence[int],
  requires_grad: bool = False,
  hooks: Any = None,
  metadata: Any = None,
) -> np.ndarray:
  """A tensor: a strided view of its storage."""
  del requires_grad, hooks
  if metadata:
    raise UserError('it holds a conjugated or negated tensor view')
  if not isinstance(storage, _Storage) or len(size) != len(stride):
    raise Damaged('a tensor without a storage')
  numbers = (offset, *size, *stride)
  if not all(type(n) is int and n >= 0 for n in numbers):
    raise Damaged('a tensor with a size or stride below zero')
  dtype = storage.dtype
  if 0 in size:
    return np.zeros(size, dtype)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if (last + 1) * dtype.itemsize > len(storage.data):
    raise Damaged('a tensor that reaches past its storage')
  data = storage.data[offset * dtype.itemsize : (last + 1) * dtype.itemsize]
  strides = [s * dtype.itemsize for s in stride]
  return np.lib.stride_tricks.as_strided(
    mapped.view(data, dtype), size, strides, writeable=False
  )


def _tensor_v3(storage, offset, size, stride, grad, hooks, dtype, *rest):
  """A tensor whose type is not the type of its (untyped) storage."""
  if not isinstance(storage, _Storage) or not isinstance(dtype, np.dtype):
    raise Damaged('a tensor without a type')
  storage = _Storage(storage.data, dtype)
  return _tensor(storage, offset, size, stride, grad, hooks, *rest)


def _parameter(data, *rest):
  """A parameter is its tensor; gradient flag, hooks and state are dropped."""
  del rest
  return data


def _bytes(text: str = '', encoding: str = 'latin1') -> bytes:
  """Protocol 2 writes bytes as text encoded in latin-1."""
  if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
    raise Damaged('bytes in an unknown encoding')
  return text.encode('latin-1')


@functools.cache
def _names() -> dict[str, Any]:
  """Every global name that a checkpoint may hold, and what stands for it."""
  names: dict[str, Any] = {
    'torch._utils _rebuild_tensor': Function(_tensor),
    'torch._utils _rebuild_tensor_v2': Function(_tensor),
    'torch._utils _rebuild_tensor_v3': Function(_tensor_v3),
    'torch._utils _rebuild_parameter': Function(_parameter),
    'torch._utils _rebuild_parameter_with_state': Function(_parameter),
    'torch Size': Function(tuple),
    'torch device': Function(lambda *where: ':'.join(map(str, where))),
    'torch.storage UntypedStorage': np.dtype(np.uint8),
    'collections OrderedDict': Function(plain_pickle.ordered),
    '_codecs encode': Function(_bytes),
  }
  for module in ('builtins', '__builtin__'):
    names[f'{module} set'] = Function(plain_pickle.unordered)
    names[f'{module} frozenset'] = Function(plain_pickle.unordered)
    names[f'{module} complex'] = Function(complex)
    names[f'{module} bytes'] = Function(_bytes)
    names[f'{module} bytearray'] = Function(_bytes)
  for name, dtype in _DTYPES.items():
    names[f'torch {name}'] = np.dtype(dtype)
  for name, dtype in _STORAGES.items():
    names[f'torch {name}Storage'] = np.dtype(dtype)
    names[f'torch.storage {name}Storage'] = np.dtype(dtype)
  return names
