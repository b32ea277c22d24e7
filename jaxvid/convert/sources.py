"""Finds the files of a checkpoint and reads their tensors, lazily."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.convert import safetensors_file, torch_file
from jaxvid.errors import UserError

Tensors = dict[str, np.ndarray]

_TORCH = ('.pt', '.pth', '.bin', '.ckpt')
_SUFFIXES = ('.safetensors', *_TORCH)
_SHARD = re.compile(r'(.+)-(\d+)-of-(\d+)(\.\w+)$')
# Where a folder of Wan2.1 or diffusers weights keeps each part; the first
# pattern that matches something wins.
_PLACES = {
  'dit': ('diffusion_pytorch_model', 'transformer/', 'model'),
  'vae': ('Wan2.1_VAE', 'vae/', 'diffusion_pytorch_model', 'model'),
  'tae': ('taew2_1', 'tae'),
  'text': ('models_t5', 'text_encoder/', 'model'),
  'lora': ('lora', 'adapter_model', 'pytorch_lora_weights'),
}
# Entries that a training checkpoint may hold beside the weights asked for.
_BESIDE = re.compile(
  r'(generator|critic|generator_ema|model|generator_lora|critic_lora'
  r'|\w*optimizer|\w*scheduler)$'
)


@dataclasses.dataclass(frozen=True)
class Source:
  """Tensors as they lie in the files.

  Attributes:
    tensors: read-only arrays mapped to the files, by the files' own names.
    settings: the model's own settings from `config.json` or the file, or {}.
    where: for messages.
  """

  tensors: Tensors
  settings: Mapping[str, Any]
  where: str


def read(
  path: str | os.PathLike,
  kind: str | None = None,
  use_ema: bool | None = None,
) -> Source:
  """Reads the tensors of a checkpoint file or folder.

  Args:
    path: a `.safetensors`, `.pt`, `.pth` or `.bin` file, one shard of
      several, an index, or a folder of Wan2.1 or diffusers weights.
    kind: which part of a folder of several models is meant ('dit', 'vae',
      'tae', 'text', 'lora'); None takes the transformer, or what there is.
    use_ema: which weights of a training checkpoint; None prefers the EMA.

  Raises:
    UserError: nothing there, incomplete, damaged, or the entry is missing.
  """
  path = pathlib.Path(path)
  files, index = _files(path, kind)
  if files[0].suffix in _TORCH and len(files) == 1:
    tensors, metadata = _entry(files[0], use_ema), {}
  else:
    tensors, metadata = _merge(files, index)
    if use_ema:
      raise UserError(f'{path} holds one set of weights, no separate EMA')
  settings = _settings(files[0], metadata)
  return Source(tensors, settings, str(path))


def _files(
  path: pathlib.Path, kind: str | None
) -> tuple[list[pathlib.Path], dict[str, str] | None]:
  """Files to read, and which tensor the index wants from which file."""
  if path.is_dir():
    path = _in_folder(path, kind)
  if not path.is_file():
    raise UserError(f'no such file: {path}')
  if path.name.endswith('.index.json'):
    return _indexed(path)
  if path.suffix not in _SUFFIXES:
    known = ', '.join(_SUFFIXES)
    raise UserError(f'{path} is no checkpoint file (known: {known})')
  shard = _SHARD.match(path.name)
  if shard:
    return _shards(path, *shard.groups())
  return [path], None


def _in_folder(folder: pathlib.Path, kind: str | None) -> pathlib.Path:
  """The file, or one shard or the index, of a model in a folder."""
  names = sorted(entry.name for entry in folder.iterdir())
  # An adapter is never what somebody means who names no kind.
  kinds = [kind] if kind else [k for k in _PLACES if k != 'lora']
  for place in (place for k in kinds for place in _PLACES[k]):
    if place.endswith('/'):
      if (folder / place).is_dir():
        return _in_folder(folder / place, kind)
      continue
    fits = [n for n in names if n.startswith(place)]
    for suffix in ('.index.json', *_SUFFIXES):
      found = [n for n in fits if n.endswith(suffix)]
      if len(found) == 1 or (found and _SHARD.match(found[0])):
        return folder / found[0]
      if found:
        many = ', '.join(found[:4])
        raise UserError(
          f'{folder} holds several checkpoints ({many}): name one'
        )
  candidates = [n for n in names if n.endswith(_SUFFIXES)]
  if len(candidates) == 1:
    return folder / candidates[0]
  what = f'a {kind} checkpoint' if kind else 'a checkpoint'
  seen = ', '.join(candidates[:4]) or 'no weight files'
  raise UserError(f'cannot find {what} in {folder} ({seen})')


def _indexed(path: pathlib.Path):
  """Files and contents that a `*.index.json` lists."""
  index = _json(path).get('weight_map')
  if not isinstance(index, dict) or not index:
    raise UserError(f'{path} has no weight_map')
  names = sorted({str(name) for name in index.values()})
  if any(pathlib.Path(name).name != name for name in names):
    raise UserError(f'{path} names files outside its folder')
  files = [path.with_name(name) for name in names]
  _all_there(files)
  return files, index


def _shards(path, stem, number, count, suffix):
  """All shards beside one of them, through the index if there is one."""
  index = path.with_name(f'{stem}{suffix}.index.json')
  if index.is_file():
    return _indexed(index)
  width = len(number)
  files = [
    path.with_name(f'{stem}-{i:0{width}}-of-{count}{suffix}')
    for i in range(1, int(count) + 1)
  ]
  _all_there(files)
  return files, None


def _all_there(files: list[pathlib.Path]) -> None:
  missing = [f.name for f in files if not f.is_file()]
  if missing:
    raise UserError(
      f'{len(missing)} of {len(files)} files are missing in '
      f'{files[0].parent}: {", ".join(missing[:4])}'
    )


def _merge(files, index) -> tuple[Tensors, dict[str, str]]:
  """Tensors of all files; each name may come from one file only."""
  tensors: Tensors = {}
  metadata: dict[str, str] = {}
  for file in files:
    if file.suffix in _TORCH:
      part = _tensors_only(file, torch_file.load(file))
    else:
      part, metadata = safetensors_file.load(file)
    twice = sorted(tensors.keys() & part.keys())
    if twice:
      raise UserError(f'{file} repeats {twice[0]} of another file')
    if index is not None:
      lost = [k for k, f in index.items() if f == file.name and k not in part]
      if lost:
        raise UserError(f'{file} lacks {lost[0]}, which the index promises')
    tensors.update(part)
  return tensors, metadata


def _entry(file: pathlib.Path, use_ema: bool | None) -> Tensors:
  """The weights asked for in a torch file, bare or nested."""
  tree = torch_file.load(file)
  if not isinstance(tree, dict):
    raise UserError(f'{file} holds a {type(tree).__name__}, not named weights')
  parts = {k: v for k, v in tree.items() if isinstance(v, dict) and v}
  if not parts:
    if use_ema:
      raise UserError(f'{file} holds one set of weights, no separate EMA')
    return _tensors_only(file, tree)
  strange = [k for k in tree if not _allowed_beside(k, tree[k])]
  if strange:
    raise UserError(f'{file} holds an unknown entry {strange[0]!r}')
  order = {
    None: ('generator_ema', 'generator', 'model', 'generator_lora'),
    True: ('generator_ema',),
    False: ('generator', 'model', 'generator_lora'),
  }[use_ema]
  for name in order:
    if name in parts:
      return _tensors_only(file, parts[name])
  raise UserError(
    f'{file} holds {", ".join(map(str, parts))}, but none of {", ".join(order)}'
  )


def _allowed_beside(name: Any, value: Any) -> bool:
  """Whether a top-level entry is documented, or no weights at all."""
  if isinstance(value, np.ndarray):
    return value.ndim == 0
  if isinstance(value, dict) and value:
    return isinstance(name, str) and bool(_BESIDE.match(name))
  return True


def _tensors_only(file: pathlib.Path, tree: Any) -> Tensors:
  """A flat dict of tensors; counters beside them are dropped."""
  if not isinstance(tree, dict):
    raise UserError(f'{file} holds no named weights')
  plain = int | float | str | bytes | type(None)
  tensors = {}
  for name, value in tree.items():
    if isinstance(name, str) and isinstance(value, np.ndarray):
      tensors[name] = value
    elif not isinstance(value, plain):
      kind = type(value).__name__
      raise UserError(f'{file}: entry {name!r} is a {kind}, not a tensor')
  if not tensors:
    raise UserError(f'{file} holds no tensors')
  return tensors


def _settings(file: pathlib.Path, metadata: Mapping[str, str]) -> dict:
  """Settings that the file or its folder gives for the model."""
  if 'config' in metadata:
    try:
      return dict(json.loads(metadata['config']))
    except (ValueError, TypeError):
      raise UserError(f'cannot read the settings inside {file}') from None
  adapter = file.name.startswith('adapter_model')
  beside = file.with_name('adapter_config.json' if adapter else 'config.json')
  return _json(beside) if beside.is_file() else {}


def _json(path: pathlib.Path) -> dict:
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'cannot read {path}: {error}') from None
  if not isinstance(value, dict):
    raise UserError(f'cannot read {path}: it is not a JSON object')
  return value
