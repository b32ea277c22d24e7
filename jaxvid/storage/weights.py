"""Weights folders: `config.json` and one orbax tree in `params/`.

Written and read a few tensors at a time. Orbax left to itself copies all of
them before it writes and holds them twice while it reads, so that it takes
two to three times the size of the weights.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxvid.errors import UserError
from jaxvid.storage import mapped

FORMAT = 'jaxvid-params-1'
# Bytes of a piece of a tensor, of the tensors handled at once, and of a data
# file: what is held in memory beside the weights.
_CHUNK, _BATCH, _FILE = 1 << 22, 1 << 24, 1 << 26
# Batches read at the same time.
_READERS = 2
Place = Callable[[np.ndarray], Any]


def save(
  path: str | os.PathLike,
  params: Mapping[str, Any],
  config: Mapping[str, Any],
  dtype: Any = None,
) -> None:
  """Writes `path/params/` and `path/config.json`, bit for bit.

  Args:
    path: the folder; it appears complete or not at all, and replaces an
      older one.
    params: nested dict of arrays, of numpy (mapped to a file or not) or jax.
    config: JSON values that say how to build the model.
    dtype: stores floating arrays as this, e.g. 'bfloat16'.

  Raises:
    UserError: the folder cannot be written.
  """
  path = pathlib.Path(path).absolute()
  part = path.with_name(f'.{path.name}.part')
  args = ocp.args.PyTreeSave(
    dict(params),
    save_args=jax.tree.map(
      lambda leaf: ocp.SaveArgs(
        dtype=_stored(leaf, dtype), chunk_byte_size=_CHUNK
      ),
      dict(params),
    ),
    ocdbt_target_data_file_size=_FILE,
  )
  writer = jax.process_index() == 0
  try:
    if writer:
      path.parent.mkdir(parents=True, exist_ok=True)
      shutil.rmtree(part, ignore_errors=True)
    with _quiet(), ocp.Checkpointer(_writer()) as checkpointer:
      checkpointer.save(part / 'params', args)
    if writer:
      _finish(path, part, config)
  except OSError as error:
    reason = error.strerror or _line(error)
    raise UserError(f'cannot write weights to {path}: {reason}') from error
  except ValueError as error:  # How tensorstore reports a full disk.
    raise UserError(
      f'cannot write weights to {path}: {_line(error)}'
    ) from error
  finally:
    if writer:
      shutil.rmtree(part, ignore_errors=True)


def load(
  path: str | os.PathLike, place: Place = np.asarray
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the folder: its config and the parameters.

  Args:
    path: the folder.
    place: what becomes of each array, e.g. `jnp.asarray`.

  Raises:
    UserError: missing, damaged, or no weights of ours.
  """
  path = pathlib.Path(path).absolute()
  config = _head(path)
  return config, read_tree(path / 'params', place)


def read_tree(path: str | os.PathLike, place: Place = np.asarray) -> Any:
  """Reads one orbax tree of arrays; as `load`, without a config.

  Raises:
    UserError: missing or damaged.
  """
  path = pathlib.Path(path).absolute()
  with _reading(path):
    reader = _reader(place)
    args = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
      reader.metadata(path).tree,
    )
    return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=args))


def metadata(path: str | os.PathLike) -> Any:
  """Shapes and dtypes of one orbax tree.

  Raises:
    UserError: missing or damaged.
  """
  path = pathlib.Path(path).absolute()
  with _reading(path):
    return _reader().metadata(path).tree


class _InBatches(ocp.type_handlers.NumpyHandler):
  """Handles a few arrays at a time, whatever they are kept in."""

  def __init__(self, place: Place = np.asarray):
    super().__init__(deepcopy_host_arrays=False)
    self._place = place

  async def serialize(self, values, infos, args=None):
    args = args or [ocp.SaveArgs()] * len(values)
    # Each batch ends with a commit, which costs time and a file.
    for batch in _batches([x.nbytes for x in values]):
      arrays = [_on_host(values[i], args[i].dtype) for i in batch]
      for future in await super().serialize(
        arrays, [infos[i] for i in batch], [args[i] for i in batch]
      ):
        future.result()
      for i in batch:
        mapped.release(values[i])
    return []

  async def deserialize(self, infos, args=None):
    args = args or [ocp.RestoreArgs()] * len(infos)
    sizes = [
      x.dtype.itemsize * int(np.prod(x.shape))
      for x in await self.metadata(infos)
    ]
    read = super().deserialize
    placed = []
    for few in itertools.batched(_batches(sizes), _READERS):
      found = await asyncio.gather(
        *(read([infos[i] for i in b], [args[i] for i in b]) for b in few)
      )
      arrays = [self._place(x) for batch in found for x in batch]
      del found
      # Arrays on their way to a device would be held twice.
      placed += jax.block_until_ready(arrays)
    return placed


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
  """Indices in order, so that a batch is one array or less than `_BATCH`."""
  batch, held = [], 0
  for i, size in enumerate(sizes):
    if batch and held + size > _BATCH:
      yield batch
      batch, held = [], 0
    batch.append(i)
    held += size
  if batch:
    yield batch


def _on_host(value: Any, dtype: Any) -> np.ndarray:
  """An array of numpy, gathered from all hosts if it is spread over them."""
  if isinstance(value, jax.Array) and not value.is_fully_addressable:
    value = multihost_utils.process_allgather(value, tiled=True)
  value = np.asarray(value)
  return value if dtype is None else value.astype(dtype, copy=False)


def _stored(leaf: Any, dtype: Any) -> Any:
  """What a leaf is stored as; None keeps its own type."""
  floating = jnp.issubdtype(leaf.dtype, jnp.floating)
  return jnp.dtype(dtype) if dtype is not None and floating else None


def _writer() -> ocp.PyTreeCheckpointHandler:
  few = _InBatches()
  return _handler(few, few)


def _reader(place: Place = np.asarray) -> ocp.PyTreeCheckpointHandler:
  # Arrays that training saved as those of jax are read like the others.
  return _handler(_InBatches(place), ocp.type_handlers.ArrayHandler())


def _handler(arrays, jax_arrays) -> ocp.PyTreeCheckpointHandler:
  return ocp.PyTreeCheckpointHandler(
    type_handler_registry=ocp.type_handlers.create_type_handler_registry(
      (np.ndarray, arrays), (jax.Array, jax_arrays)
    ),
    use_zarr3=True,
    use_compression=False,
  )


def _finish(
  path: pathlib.Path, part: pathlib.Path, config: Mapping[str, Any]
) -> None:
  """Completes the new folder `part` and puts it in the place of `path`."""
  # Orbax writes the folder's absolute path in here; its presence suffices.
  (part / 'params' / 'commit_success.txt').write_text('complete\n')
  head = {
    'format': FORMAT,
    'config': dict(config),
    'files': _digests(part / 'params'),
  }
  text = json.dumps(head, indent=2, sort_keys=True)
  (part / 'config.json').write_text(text + '\n')
  if path.exists():
    shutil.rmtree(path)
  os.replace(part, path)


def _head(path: pathlib.Path) -> dict[str, Any]:
  """The config of a weights folder, after every file was checked."""
  try:
    head = json.loads((path / 'config.json').read_text(encoding='utf-8'))
    if head['format'] != FORMAT:
      raise ValueError(f'format {head["format"]}')
    config, files = dict(head['config']), dict(head['files'])
  except FileNotFoundError:
    raise UserError(f'no jaxvid checkpoint at {path}') from None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} is not a jaxvid checkpoint: {_line(error)}'
    ) from None
  found = _digests(path / 'params')
  for name, digest in files.items():
    if name not in found:
      raise UserError(f'checkpoint {path} is incomplete: {name} is missing')
    if found[name] != digest:
      raise UserError(f'checkpoint {path} is damaged: {name} has changed')
  return config


def _digests(folder: pathlib.Path) -> dict[str, str]:
  """Size and CRC-32 of every file below `folder`."""
  digests = {}
  for file in sorted(f for f in folder.rglob('*') if f.is_file()):
    value = 0
    with file.open('rb') as stream:
      while piece := stream.read(mapped.PIECE):
        value = zlib.crc32(piece, value)
    name = file.relative_to(folder).as_posix()
    digests[name] = f'{file.stat().st_size}:{value:08x}'
  return digests


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Turns what orbax says of a bad folder into one clear line."""
  try:
    with _quiet():
      yield
  except Exception as error:  # Orbax and tensorstore raise a dozen kinds.
    raise UserError(f'cannot read checkpoint {path}: {_line(error)}') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps orbax from printing the traceback of an error that we report."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(level)


def _line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  system = re.search(r'([^:]+) \[os_error_code', text)
  if system:
    return system[1].strip()
  return text.splitlines()[0][:200]
