"""Checkpoints of the ecosystem <-> our parameter trees."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxvid.convert import lora as lora_lib
from jaxvid.convert import names, rules, safetensors_file, sources, specs
from jaxvid.errors import UserError
from jaxvid.models.layers import unstack_layers
from jaxvid.storage import mapped

KINDS = (*specs.CONFIGS, 'lora')
Params = dict[str, Any]


def load_checkpoint(
  path: str | os.PathLike,
  kind: str | None = None,
  *,
  use_ema: bool | None = None,
  lora: str | os.PathLike | None = None,
  lora_alpha: float | None = None,
  dtype: Any = None,
  config: Any = None,
) -> tuple[Any, Params]:
  """Reads a checkpoint of the Wan2.1 family.

  Official Wan2.1 files and folders, diffusers folders, the `.pt` files of
  Self-Forcing, CausVid, LongLive and DiagDistill, UMT5, the Wan VAE, taew2_1
  and peft LoRA files; what a file is shows in its keys. Strict: every tensor
  of the model must be there once, with the right shape, and nothing else.

  Args:
    path: a file, one shard of several, an index, or a folder.
    kind: 'dit', 'vae', 'tae', 'text' or 'lora': what is expected, or which
      part of a folder is meant. None takes what is there.
    use_ema: which weights of a training checkpoint; None prefers the EMA.
    lora: an adapter to merge into a transformer.
    lora_alpha: its strength (default: its own settings, else its rank); also
      that of a 'lora' checkpoint.
    dtype: converts floating tensors to this; None keeps them.
    config: the model's config, where shapes and `config.json` do not tell.

  Returns:
    The config (`DiTConfig`, `VAEConfig`, `TAEConfig`, `TextConfig` or
    `LoRAConfig`) and the parameters as a nested dict of numpy arrays in the
    unrolled layout. Arrays that needed no change are read-only views of the
    file: they cost memory only when touched, and `mapped.release` gives it
    back. Keep the file while they are in use.

  Raises:
    UserError: missing, incomplete, damaged or foreign checkpoint; names every
      key that does not fit (the first few of each sort).
  """
  if kind is not None and kind not in KINDS:
    raise UserError(f'unknown kind {kind!r}; one of {", ".join(KINDS)}')
  source = sources.read(path, kind, use_ema)
  try:
    found, tensors = names.official(source.tensors)
    if kind not in (None, found):
      raise UserError(
        f'it is {names.NAMES[found]}, not {names.NAMES[str(kind)]}'
      )
    if found == 'lora':
      settings = source.settings
      config, params = lora_lib.from_tensors(tensors, settings, lora_alpha)
    else:
      config, params = _model(found, tensors, source.settings, config)
  except UserError as error:
    raise UserError(f'{source.where}: {error}') from None
  if lora is not None:
    params = _merged(found, params, lora, lora_alpha)
  return config, cast(params, dtype) if dtype is not None else params


def to_safetensors(
  params: Mapping[str, Any], path: str | os.PathLike, config: Any = None
) -> None:
  """Writes parameters under their official keys, bit for bit.

  Args:
    params: tree of any kind, unrolled or stacked, numpy or jax arrays.
    path: the `.safetensors` file; it appears complete or not at all.
    config: the model's config; kept inside the file, so that
      `load_checkpoint` needs no `config.json`.

  Raises:
    UserError: the file cannot be written.
  """
  flat = {k: np.asarray(x) for k, x in rules.flatten(params).items()}
  flat = rules.flatten(unstack_layers(rules.unflatten(flat)))
  tensors = dict(rules.to_official(k, x) for k, x in flat.items())
  if any('.lora_A.' in key for key in tensors):
    tensors = {lora_lib.PREFIX + key: x for key, x in tensors.items()}
  metadata = {'format': 'pt'}
  if config is not None:
    metadata['config'] = json.dumps(_settings(config))
  safetensors_file.save(path, tensors, metadata)


def save_adapter(
  folder: str | os.PathLike,
  adapter: Mapping[str, Any],
  rank: int,
  alpha: float,
) -> None:
  """Writes an adapter as a folder that peft reads.

  Args:
    folder: receives `adapter_model.safetensors` and `adapter_config.json`.
    adapter: tree with `lora_A` and `lora_B`, unrolled or stacked.
    rank: inner size of its pairs.
    alpha: its strength.

  Raises:
    UserError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  config = lora_lib.LoRAConfig(rank, alpha)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(lora_lib.peft_config(adapter, config), indent=2)
    (folder / 'adapter_config.json').write_text(text + '\n')
  except OSError as error:
    raise UserError(f'cannot write {folder}: {error.strerror}') from error
  to_safetensors(adapter, folder / 'adapter_model.safetensors', config)


def cast(params: Mapping[str, Any], dtype: Any) -> Params:
  """Floating arrays as `dtype`, one at a time; mapped pages are released."""
  dtype = jnp.dtype(dtype)
  flat = rules.flatten(params)
  for path, x in flat.items():
    if x.dtype != dtype and jnp.issubdtype(x.dtype, jnp.floating):
      flat[path] = x.astype(dtype)
      mapped.release(x)
  return rules.unflatten(flat)


def transfer(params: Mapping[str, Any], place: Callable[[Any], Any]) -> Params:
  """`place` of every array, one at a time; mapped pages are released.

  E.g. `transfer(params, jnp.array)` to the default device. `place` must copy.
  """
  flat = rules.flatten(params)
  for path, x in flat.items():
    flat[path] = place(x)
    mapped.release(x)
  return rules.unflatten(flat)


def kind_of(config: Any) -> str:
  """'dit', 'vae', 'tae', 'text' or 'lora' of a config object."""
  table = {cls: kind for kind, cls in specs.CONFIGS.items()}
  return (table | {lora_lib.LoRAConfig: 'lora'})[type(config)]


def _model(kind, tensors, settings, config):
  """Config and parameters of a model after every key was checked."""
  if config is None:
    shapes = {key: x.shape for key, x in tensors.items()}
    config = specs.infer(kind, shapes, settings)
  elif kind_of(config) != kind:
    raise UserError(f'it is {names.NAMES[kind]}, the config is of another')
  wanted = specs.expected(kind, config)
  if kind == 'tae':
    tensors = _newest_tgrow(tensors, wanted)
  _check(tensors, wanted)
  return config, rules.convert({key: tensors[key] for key in wanted})


def _newest_tgrow(tensors, wanted):
  """Cuts the growing layers of older files to their last channels."""
  tensors = dict(tensors)
  for key, shape in wanted.items():
    x = tensors.get(key)
    grows = key.startswith('decoder.') and key.endswith('.conv.weight')
    if grows and x is not None and x.shape[1:] == shape[1:]:
      tensors[key] = x[-shape[0] :] if len(x) > shape[0] else x
  return tensors


def _check(tensors: Mapping[str, np.ndarray], wanted: specs.Shapes) -> None:
  """Raises UserError naming what is missing, unknown or mis-shaped."""
  missing = [key for key in wanted if key not in tensors]
  unknown = [key for key in tensors if key not in wanted]
  wrong = [
    f'{key} is {x.shape}, not {wanted[key]}'
    for key, x in tensors.items()
    if key in wanted and x.shape != wanted[key]
  ]
  wrong += [
    f'{key} is {x.dtype}'
    for key, x in tensors.items()
    if key in wanted and not jnp.issubdtype(x.dtype, jnp.floating)
  ]
  parts = [
    f'{len(found)} {sort}: {", ".join(found[:5])}'
    + (', ...' if len(found) > 5 else '')
    for sort, found in (
      ('missing', missing),
      ('unknown', unknown),
      ('mis-shaped', wrong),
    )
    if found
  ]
  if parts:
    raise UserError('; '.join(parts))


def _merged(kind, params, path, alpha):
  if kind != 'dit':
    raise UserError(f'a LoRA adapter belongs to a transformer, not to {kind}')
  config, adapter = load_checkpoint(path, 'lora', lora_alpha=alpha)
  try:
    return lora_lib.merge(params, adapter, config.scale)
  except UserError as error:
    raise UserError(f'{path}: {error}') from None


def _settings(config: Any) -> dict[str, Any]:
  """A config in the words of `config.json`."""
  settings = dataclasses.asdict(config)
  for ours, theirs in (
    ('latent_mean', 'latents_mean'),
    ('latent_std', 'latents_std'),
  ):
    if ours in settings:
      settings[theirs] = settings.pop(ours)
  return settings


def is_ours(path: str | os.PathLike) -> bool:
  """Whether a path is a checkpoint folder of this library."""
  path = pathlib.Path(path)
  return (path / 'params').is_dir() or (path / 'checkpoints').is_dir()
