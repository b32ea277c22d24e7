"""Converts checkpoints between the ecosystem's formats and ours."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jaxvid import config as config_lib
from jaxvid.convert import checkpoint, lora, rules, specs
from jaxvid.errors import UserError
from jaxvid.models.layers import unstack_layers
from jaxvid.storage import weights
from jaxvid.training import checkpoint as ours

_CONFIGS = specs.CONFIGS | {'lora': lora.LoRAConfig}


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    source: a checkpoint of the Wan2.1 family (file, shard, index or folder;
      see `convert.checkpoint.load_checkpoint`), or a folder of ours.
    target: a `.safetensors` file (official keys), else a folder of ours
      (orbax). It appears complete or not at all; an older one is replaced.
    kind: which part of a folder is meant; none: the transformer, or what
      there is.
    use_ema: which weights of a training checkpoint; none: the EMA if any.
    lora: adapter to merge into the transformer.
    lora_alpha: strength of the adapter; none: as stored, else its rank.
    dtype: type of the stored numbers; none keeps that of the source.
  """

  source: str
  target: str
  kind: Literal['dit', 'vae', 'tae', 'text', 'lora'] | None = None
  use_ema: bool | None = None
  lora: str | None = None
  lora_alpha: float | None = None
  dtype: Literal['float32', 'bfloat16', 'float16'] | None = None


def run(config: Config) -> None:
  """Converts one checkpoint and prints what it was."""
  target = pathlib.Path(config.target)
  _check_target(pathlib.Path(config.source), target)
  model, params = _load(config)
  kind = checkpoint.kind_of(model)
  if target.suffix == '.safetensors':
    checkpoint.to_safetensors(params, target, model)
  else:
    weights.save(target, params, specs.to_json(kind, model))
  leaves = rules.flatten(params).values()
  count = sum(int(np.prod(x.shape)) for x in leaves)
  print(f'{target}: {kind}, {len(leaves)} tensors, {count:,} parameters')


def _check_target(source: pathlib.Path, target: pathlib.Path) -> None:
  """Refuses targets that would destroy something else."""
  if target.suffix == '.safetensors':
    if target.is_dir():
      raise UserError(f'the target {target} is a folder')
    return
  if target.is_file():
    raise UserError(f'the target {target} is a file; name a folder')
  if target.is_dir() and any(target.iterdir()):
    # A run's folder holds more than weights, so it is never replaced.
    replaceable = (target / 'params').is_dir()
    if not replaceable or source.absolute() == target.absolute():
      raise UserError(f'the target {target} is in use; name a new folder')


def _load(config: Config) -> tuple[Any, Any]:
  """The model's config and parameters from either world."""
  if not checkpoint.is_ours(config.source):
    return checkpoint.load_checkpoint(
      config.source,
      config.kind,
      use_ema=config.use_ema,
      lora=config.lora,
      lora_alpha=config.lora_alpha,
      dtype=config.dtype,
    )
  item = 'params' if config.use_ema is False else 'ema'
  settings, params = ours.load_params(config.source, item, place=np.asarray)
  kind = _which(settings, config)
  model = config_lib.from_dict(_CONFIGS[kind], settings[kind])
  if kind in params:
    params = params[kind]  # Trained together, kept together.
  if kind != 'lora':
    params = unstack_layers(params)
    ours.check_tree(params, specs.abstract(kind, model), config.source)
  if config.lora is not None:
    adapter_config, adapter = checkpoint.load_checkpoint(
      config.lora, 'lora', lora_alpha=config.lora_alpha
    )
    params = lora.merge(params, adapter, adapter_config.scale)
  if config.dtype is not None:
    params = checkpoint.cast(params, config.dtype)
  return model, params


def _which(settings: Mapping[str, Any], config: Config) -> str:
  """Which of the models in a checkpoint of ours is meant."""
  held = [kind for kind in _CONFIGS if isinstance(settings.get(kind), dict)]
  if not held:
    raise UserError(f'{config.source} does not say which model it holds')
  if config.kind not in (None, *held):
    raise UserError(
      f'{config.source} holds {", ".join(held)}, but no {config.kind}'
    )
  return config.kind or held[0]
