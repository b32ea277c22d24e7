"""Trains a model of the shapes world, and ships its averaged weights."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxvid.errors import UserError
from jaxvid.training import autoencoder, checkpoint, diffusion, loop
from jaxvid.training.autoencoder import TAETraining, VAETraining
from jaxvid.training.diffusion import DiffusionConfig
from jaxvid.training.loop import LoopConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task; exactly one of the models is given.

  Attributes:
    workdir: checkpoints and TensorBoard files; a run found there resumes.
    export: folder that receives the averaged weights at the end; '' = none.
    export_dtype: their type on disk.
    loop: steps, optimiser, checkpoints, devices.
    diffusion: a text-to-video model.
    vae: a Wan VAE.
    tae: a fast decoder for a finished VAE.
  """

  workdir: str
  export: str = ''
  export_dtype: str = 'bfloat16'
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
  diffusion: DiffusionConfig | None = None
  vae: VAETraining | None = None
  tae: TAETraining | None = None


def run(config: Config) -> None:
  """Trains to the last step, then writes the averaged weights."""
  task, exported = make_task(config)
  state = loop.train(config.loop, task, config.workdir)
  if config.export:
    head, params = exported(state.ema)
    checkpoint.save_params(config.export, params, head, config.export_dtype)
    print(config.export)
  else:
    print(config.workdir)


Exported = Callable[[Any], tuple[Mapping[str, Any], Any]]


def make_task(config: Config) -> tuple[loop.TrainTask, Exported]:
  """What is trained, and how it is shipped: averages -> config, parameters."""
  kinds = ('diffusion', 'vae', 'tae')
  given = [kind for kind in kinds if getattr(config, kind) is not None]
  if len(given) != 1:
    raise UserError(
      'give exactly one of config.diffusion, config.vae and config.tae, not '
      f'{len(given)}'
    )
  if config.diffusion is not None:
    task = diffusion.diffusion_task(config.diffusion)
    return task, lambda params: (task.config, diffusion.exported(params))
  if config.vae is not None:
    exported = functools.partial(autoencoder.exported_vae, config.vae)
    return autoencoder.vae_task(config.vae), exported
  assert config.tae is not None
  task = autoencoder.tae_task(config.tae)
  return task, lambda params: (task.config, params)
