"""One mechanical rule between official checkpoint keys and our parameters.

Every model follows it, so there is no table per model:

- name: `.<digits>` becomes `_<digits>`, then `.` becomes `/`
  (`encoder.downsamples.0.residual.2` -> `encoder/downsamples_0/residual_2`);
- last name: `weight` becomes `kernel` (matrices and convolutions), `scale`
  (one axis: norms) or `embedding` (matrices of a module named `*embedding`);
- axes: matrices and convolutions go from `[out, in, ...]` to
  `[..., in, out]`; `gamma [C, 1, 1(, 1)]` becomes `[C]` and
  `modulation [1, n, D]` becomes `[n, D]`.

Only axes move, so both directions keep every bit. Parameter trees here are
nested dicts in the unrolled layout (`blocks_0`, `blocks_1`, ...).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.errors import UserError

# Axes of `kernel` from `[out, in, ...]`, by rank: matrix, conv2d, conv3d.
_TO_KERNEL = {2: (1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
_FROM_KERNEL = {2: (1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}


def path_of(key: str, rank: int) -> str:
  """Our path (`a/b_0/kernel`) of an official key with `rank` axes."""
  *module, last = re.sub(r'\.(\d+)(?=\.|$)', r'_\1', key).split('.')
  if last == 'weight':
    if rank == 1:
      last = 'scale'
    elif rank == 2 and module and module[-1].endswith('embedding'):
      last = 'embedding'
    elif rank in _TO_KERNEL:
      last = 'kernel'
    else:
      raise UserError(f'{key} has {rank} axes, which no layer here has')
  return '/'.join((*module, last))


def key_of(path: str) -> str:
  """The official key of one of our paths."""
  *module, last = path.split('/')
  if last in ('kernel', 'scale', 'embedding') and module:
    last = 'weight'
  module = [re.sub(r'_(\d+)$', r'.\1', name) for name in module]
  return '.'.join((*module, last))


def shape_of(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The official shape of our array of that path and shape."""
  name = path.rpartition('/')[2]
  if name == 'kernel':
    return tuple(shape[i] for i in _FROM_KERNEL[len(shape)])
  if name == 'modulation':
    return (1, *shape)
  if name == 'gamma':
    # The norm in front of attention works on pictures, the others on video.
    return (*shape, 1, 1) if path.endswith('norm/gamma') else (*shape, 1, 1, 1)
  return tuple(shape)


def to_ours(key: str, array: np.ndarray) -> tuple[str, np.ndarray]:
  """Our path and array of an official tensor; a view wherever possible."""
  path = path_of(key, array.ndim)
  name = path.rpartition('/')[2]
  if name == 'kernel':
    array = array.transpose(_TO_KERNEL[array.ndim])
  elif name == 'modulation':
    array = array[0]
  elif name == 'gamma':
    array = array.reshape(array.shape[:1])
  return path, array


def to_official(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
  """The inverse of `to_ours`."""
  if path.rpartition('/')[2] == 'kernel':
    return key_of(path), array.transpose(_FROM_KERNEL[array.ndim])
  return key_of(path), array.reshape(shape_of(path, array.shape))


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested dicts -> `{'a/b': leaf}`."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{name}/'))
    else:
      flat[prefix + name] = value
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """`{'a/b': leaf}` -> nested dicts."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = value
  return tree


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Official tensors -> our nested parameters (unrolled layout)."""
  return unflatten(dict(to_ours(key, x) for key, x in tensors.items()))
