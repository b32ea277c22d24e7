"""Writes torch checkpoints, so that tests need no torch."""

import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

STORAGES = {
  np.dtype(np.float64): 'DoubleStorage',
  np.dtype(np.float32): 'FloatStorage',
  np.dtype(np.float16): 'HalfStorage',
  np.dtype(ml_dtypes.bfloat16): 'BFloat16Storage',
  np.dtype(np.int64): 'LongStorage',
  np.dtype(np.bool_): 'BoolStorage',
}


class Raw(bytes):
  """A piece of pickle that goes into the file as it is."""


def opcodes(value, storages: list) -> bytes:
  """Pickle of plain data and arrays; arrays become tensors.

  The storage of an array is what it is a view of, so that views share it.
  """
  if isinstance(value, Raw):
    return bytes(value)
  if isinstance(value, dict):
    items = b''.join(
      opcodes(k, storages) + opcodes(v, storages) for k, v in value.items()
    )
    return b'}(' + items + b'u'
  if isinstance(value, list):
    return b'](' + b''.join(opcodes(v, storages) for v in value) + b'e'
  if isinstance(value, tuple):
    return b'(' + b''.join(opcodes(v, storages) for v in value) + b't'
  if isinstance(value, np.ndarray):
    return tensor(value, storages)
  return pickle.dumps(value, 2)[2:-1].split(b'q\x00')[0]


def tensor(array: np.ndarray, storages: list) -> bytes:
  """`_rebuild_tensor_v2` of an array or a view of one."""
  base = array if array.base is None else array.base
  for key, known in enumerate(storages):  # noqa: B007
    if known is base:
      break
  else:
    key = len(storages)
    storages.append(base)
  start = array.__array_interface__['data'][0]
  offset = start - base.__array_interface__['data'][0]
  size = array.dtype.itemsize
  storage = (
    'storage',
    Raw(b'ctorch\n' + STORAGES[array.dtype].encode() + b'\n'),
    str(key),
    'cpu',
    base.size,
  )
  args = (
    Raw(opcodes(storage, storages) + b'Q'),
    offset // size,
    array.shape,
    tuple(s // size for s in array.strides),
    False,
    Raw(b'ccollections\nOrderedDict\n)R'),
  )
  return b'ctorch._utils\n_rebuild_tensor_v2\n' + opcodes(args, storages) + b'R'


def save(path, tree) -> None:
  """Writes `tree` as `torch.save` does (protocol 2, zip, nothing packed)."""
  storages: list[np.ndarray] = []
  data = b'\x80\x02' + opcodes(tree, storages) + b'.'
  write_zip(path, data, storages)


def write_zip(path, data: bytes, storages=()) -> None:
  """The archive around a pickle and its storages."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    entries = {'data.pkl': data, 'byteorder': b'little', 'version': b'3\n'}
    for key, base in enumerate(storages):
      entries[f'data/{key}'] = base.reshape(-1).view(np.uint8).data
    for name, content in entries.items():
      info = zipfile.ZipInfo(f'archive/{name}')
      # Pad like torch does, so that every entry starts at a multiple of 64.
      at = archive.start_dir + 30 + len(info.filename) + 4
      pad = -at % 64
      info.extra = struct.pack('<HH', 0x4246, pad) + b'\0' * pad
      archive.writestr(info, content)
