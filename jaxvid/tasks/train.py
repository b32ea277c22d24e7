"""Trains a model of the shapes world, and ships its averaged weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxvid.errors import UserError
from jaxvid.models.vae import VAEConfig
from jaxvid.training import autoencoder, checkpoint, diffusion, loop
from jaxvid.training.diffusion import DiffusionConfig
from jaxvid.training.loop import LoopConfig


@dataclasses.dataclass(frozen=True)
class VAETraining:
  """A VAE and how it is trained.

  Attributes:
    model: sizes.
    clips: what it learns from.
    weights: of the parts of its loss.
  """

  model: VAEConfig
  clips: autoencoder.ClipConfig = dataclasses.field(
    default_factory=autoencoder.ClipConfig
  )
  weights: autoencoder.LossConfig = dataclasses.field(
    default_factory=autoencoder.LossConfig
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task; exactly one of the models is given.

  Attributes:
    workdir: checkpoints and TensorBoard files; a run found there resumes.
    export: folder that receives the averaged weights at the end; '' = none.
    export_dtype: their type on disk.
    loop: steps, optimiser, checkpoints, devices.
    diffusion: a text-to-video model.
    vae: an autoencoder.
  """

  workdir: str
  export: str = ''
  export_dtype: str = 'bfloat16'
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
  diffusion: DiffusionConfig | None = None
  vae: VAETraining | None = None


def run(config: Config) -> None:
  """Trains to the last step, then writes the averaged weights."""
  task, exported = make_task(config)
  state = loop.train(config.loop, task, config.workdir)
  if config.export:
    checkpoint.save_params(
      config.export, exported(state.ema), task.config, config.export_dtype
    )
    print(config.export)
  else:
    print(config.workdir)


def make_task(config: Config) -> tuple[loop.TrainTask, Callable[[Any], Any]]:
  """What is trained, and how its parameters look when shipped."""
  given = [
    name for name in ('diffusion', 'vae') if getattr(config, name) is not None
  ]
  if len(given) != 1:
    raise UserError(
      f'give exactly one of config.diffusion and config.vae, not {len(given)}'
    )
  if config.diffusion is not None:
    return diffusion.diffusion_task(config.diffusion), diffusion.exported
  vae = config.vae
  task = autoencoder.vae_task(vae.model, vae.clips, vae.weights)
  return task, lambda params: params
