"""AAPT's first two stages as training tasks: adaptation and consistency.

Both are teacher-forced: the frames a clip is shown are its own, one frame
late, and all of it is one causal pass at one noise level. Adaptation turns a
text-to-video model into a causal one that recycles frames; consistency makes
it a one-step generator, blurry, from which adversarial training starts.
Source: AAPT supplement D.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from jaxvid.objectives import consistency, flow_matching
from jaxvid.objectives.consistency import ConsistencyConfig
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.parallel import rules
from jaxvid.training import aapt_config, student
from jaxvid.training.aapt_config import AAPTConfig
from jaxvid.training.distillation import part
from jaxvid.training.loop import TrainTask

# *paper*: uniform times, shift 24, one noise level per clip, plain error.
ADAPTATION = FlowConfig(times='uniform', shift=24.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptConfig(AAPTConfig):
  """Diffusion adaptation.

  Attributes:
    flow: noise levels and weights.
  """

  flow: FlowConfig = ADAPTATION


@dataclasses.dataclass(frozen=True, kw_only=True)
class AAPTConsistency(AAPTConfig):
  """Consistency distillation of the adapted model.

  Attributes:
    teacher: weights of the adapted model, which makes the steps between
      neighbouring levels, without guidance; empty: `weights`.
    consistency: grid, distance and weights.
  """

  teacher: str = ''
  consistency: ConsistencyConfig = consistency.AAPT


def adapt_task(config: AdaptConfig) -> TrainTask:
  """Trains `{'dit': ...}` to denoise clips beside their recycled frames."""
  return _task(
    config,
    functools.partial(adapt_loss, config),
    lambda: {'dit': aapt_config.load_widened(config)},
    lambda: aapt_config.text_encoder(config),
    aapt_config.model_config(config),
  )


def consistency_task(config: AAPTConsistency) -> TrainTask:
  """Trains `{'dit': ...}` to say the same along a trajectory."""

  def frozen():
    teacher = part(config.teacher or config.weights, 'dit', config.scan)
    return {**aapt_config.text_encoder(config), 'teacher': teacher}

  return _task(
    config,
    functools.partial(consistency_loss, config),
    lambda: {'dit': aapt_config.load(config)},
    frozen,
    aapt_config.streamed(config),
  )


def _task(config: AAPTConfig, loss, load, frozen, head) -> TrainTask:
  tokenizer = student.open_tokenizer(config)
  return TrainTask(
    init=functools.partial(student.init, config),
    method=functools.partial(student.method, loss),
    batches=functools.partial(aapt_config.batches, config, tokenizer),
    config=head,
    load=load,
    frozen=frozen,
    rules=rules.TRANSFORMER,
  )


def split_batch(config: AAPTConfig, frozen, batch):
  """Encoded prompts, first frames `[B, 1, ...]` and the frames to be made."""
  text = student.encode(config, frozen, batch['ids'], batch['mask'])
  clip = batch['latents'].astype(jnp.float32)
  return text, clip[:, :1], clip[:, 1:]


def adapt_loss(config: AdaptConfig, frozen, params, batch, key):
  """Flow-matching error of one batch of cached latents."""
  text, first, clip = split_batch(config, frozen, batch)
  velocity = aapt_config.field(config, params['dit'], text, first, clip)
  return flow_matching.loss(velocity, clip, key, config.flow)


def consistency_loss(config: AAPTConsistency, frozen, params, batch, key):
  """Disagreement along trajectories of one batch of cached latents."""
  text, first, clip = split_batch(config, frozen, batch)

  def field(params):
    return aapt_config.field(config, params, text, first, clip)

  own = field(params['dit'])
  # The target is the student itself: no average (*paper*).
  return consistency.loss(
    own, own, clip, key, config.consistency, field(frozen['teacher'])
  )


def exported(
  config: AAPTConfig, ema: dict[str, Any], head: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship: the generator and its text encoder."""
  return student.exported(config, ema, head)
