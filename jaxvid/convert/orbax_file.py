"""Orbax checkpoints of weights, read and written one tensor at a time.

The folder is that of `training.checkpoint.save_params`, and either module
reads what the other wrote. Orbax itself copies all tensors before it writes
and reads all at once, which takes two to three times their size.
"""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxvid.convert import mapped
from jaxvid.errors import UserError

FORMAT = 'jaxvid-params-1'
# Sizes of a piece of a tensor and of a data file: what is held in memory.
_CHUNK, _FILE = 1 << 22, 1 << 26


class _OneByOne(ocp.type_handlers.NumpyHandler):
  """Handles arrays in turn and gives mapped pages back after each."""

  def __init__(self):
    super().__init__(deepcopy_host_arrays=False)

  async def serialize(self, values, infos, args=None):
    args = args or [ocp.SaveArgs()] * len(values)
    for value, info, arg in zip(values, infos, args, strict=True):
      for future in await super().serialize([value], [info], [arg]):
        future.result()
      mapped.release(value)
    return []

  async def deserialize(self, infos, args=None):
    args = args or [ocp.RestoreArgs()] * len(infos)
    values = []
    for info, arg in zip(infos, args, strict=True):
      values += await super().deserialize([info], [arg])
    return values


def save(
  path: str | os.PathLike, params: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
  """Writes `path/params/` and `path/config.json`, bit for bit.

  Args:
    path: the folder; it appears complete or not at all, and replaces an
      older one.
    params: nested dict of numpy arrays, mapped to a file or not.
    config: JSON values that say which model it is.

  Raises:
    UserError: the folder cannot be written.
  """
  path = pathlib.Path(path).absolute()
  part = path.with_name(f'.{path.name}.part')
  args = ocp.args.PyTreeSave(
    dict(params),
    save_args=jax.tree.map(
      lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), params
    ),
    ocdbt_target_data_file_size=_FILE,
  )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)
    with _quiet(), _checkpointer() as checkpointer:
      checkpointer.save(part / 'params', args)
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
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}') from error
  except ValueError as error:  # How tensorstore reports a full disk.
    raise UserError(f'cannot write {path}: {_line(error)}') from error
  finally:
    shutil.rmtree(part, ignore_errors=True)


def load(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the folder: its config and the parameters as numpy arrays.

  Raises:
    UserError: missing, damaged, or no checkpoint of ours.
  """
  path = pathlib.Path(path).absolute()
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
    if found.get(name) != digest:
      what = 'has changed' if name in found else 'is missing'
      raise UserError(f'checkpoint {path} is damaged: {name} {what}')
  try:
    with _quiet(), _checkpointer() as checkpointer:
      tree = checkpointer.metadata(path / 'params').item_metadata.tree
      args = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
      )
      params = checkpointer.restore(
        path / 'params', ocp.args.PyTreeRestore(restore_args=args)
      )
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'cannot read {path}: {_line(error)}') from None
  return config, params


@contextlib.contextmanager
def _quiet():
  """Keeps orbax from printing the traceback of an error that we report."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(level)


def _checkpointer() -> ocp.Checkpointer:
  types = ocp.type_handlers
  registry = types.create_type_handler_registry(
    (np.ndarray, _OneByOne()),
    (jax.Array, types.ArrayHandler()),
  )
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(
      type_handler_registry=registry, use_zarr3=True, use_compression=False
    )
  )


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


def _line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  system = re.search(r'([^:]+) \[os_error_code', text)
  if system:
    return system[1].strip()
  return text.splitlines()[0][:200]
