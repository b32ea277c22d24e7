"""Trains a model of the shapes world, and ships its averaged weights."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxvid.convert import checkpoint
from jaxvid.errors import UserError
from jaxvid.storage import weights
from jaxvid.training import (
  aapt,
  aapt_adversarial,
  aapt_matching,
  autoencoder,
  block_forcing,
  consistency,
  diffusion,
  distillation,
  loop,
  ode,
)
from jaxvid.training.aapt import AAPTConsistency, AdaptConfig
from jaxvid.training.aapt_adversarial import AdversarialConfig
from jaxvid.training.aapt_matching import MatchingConfig
from jaxvid.training.autoencoder import TAETraining, VAETraining
from jaxvid.training.block_config import BlockConfig
from jaxvid.training.consistency import ConsistencyTraining
from jaxvid.training.diffusion import DiffusionConfig
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.loop import LoopConfig
from jaxvid.training.ode import ODEConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task; exactly one of the models is given.

  Attributes:
    workdir: checkpoints and TensorBoard files; a run found there resumes.
    export: folder that receives the averaged weights at the end; '' = none.
    export_dtype: their type on disk.
    export_adapter: folder that receives averaged adapters by themselves, as
      peft writes them (`distill.lora`); '' = none.
    loop: steps, optimiser, checkpoints, devices.
    diffusion: a text-to-video model.
    vae: a Wan VAE.
    tae: a fast decoder for a finished VAE.
    ode: a few-step student, from solver trajectories.
    consistency: a few-step student, from cached latents.
    distill: a few-step student, by distribution matching with a teacher.
    block: a block-diffusion model, by Block Forcing (BlockVid).
    aapt_adapt: a causal model that recycles frames, from one that does not.
    aapt_consistency: a one-step generator, from that.
    aapt_matching: the same by distribution matching, a warm-up.
    aapt_adversarial: the same by an adversary, also on long videos.
  """

  workdir: str
  export: str = ''
  export_dtype: str = 'bfloat16'
  export_adapter: str = ''
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
  diffusion: DiffusionConfig | None = None
  vae: VAETraining | None = None
  tae: TAETraining | None = None
  ode: ODEConfig | None = None
  consistency: ConsistencyTraining | None = None
  distill: DistillConfig | None = None
  block: BlockConfig | None = None
  aapt_adapt: AdaptConfig | None = None
  aapt_consistency: AAPTConsistency | None = None
  aapt_matching: MatchingConfig | None = None
  aapt_adversarial: AdversarialConfig | None = None


def run(config: Config) -> None:
  """Trains to the last step, then writes the averaged weights."""
  adapter = config.distill.lora if config.distill else None
  if config.export_adapter and adapter is None:
    raise UserError('export_adapter needs adapters: distill.lora')
  task, exported = make_task(config)
  state = loop.train(config.loop, task, config.workdir)
  if config.export_adapter and adapter is not None:
    checkpoint.save_adapter(
      config.export_adapter, state.ema['dit'], adapter.rank, adapter.alpha
    )
    print(config.export_adapter)
  if config.export:
    head, params = exported(state.ema)
    weights.save(config.export, params, head, config.export_dtype)
    print(config.export)
  else:
    print(config.workdir)


# Averaged weights -> what is shipped: config, parameters.
Exported = Callable[[Any], tuple[Mapping[str, Any], Any]]
Made = tuple[loop.TrainTask, Exported]


def make_task(config: Config) -> Made:
  """What is trained, and how it is shipped."""
  given = [kind for kind in KINDS if getattr(config, kind) is not None]
  if len(given) != 1:
    names = [f'config.{kind}' for kind in KINDS]
    raise UserError(
      f'give exactly one of {", ".join(names[:-1])} and {names[-1]}, not '
      f'{len(given)}'
    )
  (kind,) = given
  return KINDS[kind](getattr(config, kind))


def _diffusion(config: DiffusionConfig) -> Made:
  task = diffusion.diffusion_task(config)
  return task, lambda params: (task.config, diffusion.exported(params))


def _vae(config: VAETraining) -> Made:
  exported = functools.partial(autoencoder.exported_vae, config)
  return autoencoder.vae_task(config), exported


def _tae(config: TAETraining) -> Made:
  task = autoencoder.tae_task(config)
  return task, lambda params: (task.config, params)


def _ode(config: ODEConfig) -> Made:
  return ode.ode_task(config), functools.partial(ode.exported, config)


def _consistency(config: ConsistencyTraining) -> Made:
  exported = functools.partial(consistency.exported, config)
  return consistency.consistency_task(config), exported


def _distill(config: DistillConfig) -> Made:
  exported = functools.partial(distillation.exported, config)
  return distillation.distill_task(config), exported


def _adapt(config: AdaptConfig) -> Made:
  task = aapt.adapt_task(config)
  return task, lambda ema: aapt.exported(config, ema, task.config)


def _aapt_consistency(config: AAPTConsistency) -> Made:
  task = aapt.consistency_task(config)
  return task, lambda ema: aapt.exported(config, ema, task.config)


def _matching(config: MatchingConfig) -> Made:
  exported = functools.partial(aapt_matching.exported, config)
  return aapt_matching.matching_task(config), exported


def _adversarial(config: AdversarialConfig) -> Made:
  exported = functools.partial(aapt_adversarial.exported, config)
  return aapt_adversarial.adversarial_task(config), exported


def _block(config: BlockConfig) -> Made:
  exported = functools.partial(block_forcing.exported, config)
  return block_forcing.block_task(config), exported


# Key of the config -> what is made of it.
KINDS: dict[str, Callable[[Any], Made]] = {
  'diffusion': _diffusion,
  'vae': _vae,
  'tae': _tae,
  'ode': _ode,
  'consistency': _consistency,
  'distill': _distill,
  'block': _block,
  'aapt_adapt': _adapt,
  'aapt_consistency': _aapt_consistency,
  'aapt_matching': _matching,
  'aapt_adversarial': _adversarial,
}
