"""Converts checkpoints between the ecosystem's formats and ours."""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from jaxvid import config as config_lib
from jaxvid.convert import checkpoint, lora, orbax_file, rules, specs
from jaxvid.errors import UserError
from jaxvid.training import checkpoint as orbax


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
    orbax_file.save(target, params, specs.to_json(kind, model))
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
    if not checkpoint.is_ours(target) or source.absolute() == target.absolute():
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
  if (pathlib.Path(config.source) / 'params').is_dir():
    settings, params = orbax_file.load(config.source)
  else:
    item = 'params' if config.use_ema is False else 'ema'
    settings, params = orbax.load_params(config.source, item)
  model = model_config(settings, config.source)
  kind = checkpoint.kind_of(model)
  if config.kind not in (None, kind):
    raise UserError(f'{config.source} holds a {kind}, not a {config.kind}')
  if kind != 'lora':
    expected = specs.abstract(kind, model)
    orbax.check_tree(params, expected, config.source)
  if config.lora is not None:
    adapter_config, adapter = checkpoint.load_checkpoint(
      config.lora, 'lora', lora_alpha=config.lora_alpha
    )
    params = lora.merge(params, adapter, adapter_config.scale)
  if config.dtype is not None:
    params = checkpoint.cast(params, config.dtype)
  return model, params


def model_config(settings: dict[str, Any], where: str) -> Any:
  """The model's config from the config of a checkpoint of ours."""
  table = specs.CONFIGS | {'lora': lora.LoRAConfig}
  kind, model = settings.get('kind'), settings.get('model')
  if kind not in table or not isinstance(model, dict):
    raise UserError(f'{where} does not say which model it holds')
  return config_lib.from_dict(table[kind], model)
