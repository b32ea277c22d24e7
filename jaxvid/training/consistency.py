"""Causal consistency distillation as a training task, teacher-forced.

The other way to initialise a few-step student: it needs cached latents and a
causal many-tick model, but no trajectories. Sources: Causal Forcing (arXiv
2602.02214); AAPT supplement D.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax.numpy as jnp

from jaxvid.data import loaders
from jaxvid.diffusion import solvers
from jaxvid.errors import UserError
from jaxvid.objectives import consistency
from jaxvid.objectives.consistency import ConsistencyConfig
from jaxvid.parallel import rules
from jaxvid.training import student
from jaxvid.training.diffusion import DataConfig
from jaxvid.training.distillation import part
from jaxvid.training.loop import TrainTask
from jaxvid.training.student import StudentConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyTraining(StudentConfig):
  """A student, its causal teacher and how one learns from the other.

  Attributes:
    data: cached latents; prompts are never dropped.
    teacher: weights of the causal many-tick model that makes the steps
      between neighbouring levels; empty: `weights`, where the student
      starts.
    guidance: the teacher's weight w in u + w (c - u).
    target: what the student should agree with at the less noisy end: its
      'average', or the 'student' itself.
    consistency: grid, distance, weights; its chunk and forcing follow from
      the student's.
  """

  data: DataConfig
  teacher: str = ''
  guidance: float = 3.0
  target: Literal['average', 'student'] = 'average'
  consistency: ConsistencyConfig = consistency.CAUSAL_FORCING

  def __post_init__(self):
    super().__post_init__()
    if self.data.text_drop:
      raise UserError(
        'data.text_drop must be 0: the student is sampled without guidance'
      )

  @property
  def objective(self) -> ConsistencyConfig:
    """Settings of the loss."""
    return dataclasses.replace(
      self.consistency, chunk=self.chunk, forcing='teacher'
    )


def consistency_task(config: ConsistencyTraining) -> TrainTask:
  """Trains `{'dit': ...}` to say the same along a trajectory."""
  tokenizer = student.open_tokenizer(config)
  negative = tokenizer([''])
  data = config.data

  def batches(seed, state):
    return loaders.latent_batches(
      data.latents,
      tokenizer,
      batch=data.batch,
      frames=data.frames,
      text_drop=0.0,
      gap=data.gap,
      chunk=config.chunk,
      seed=seed,
      state=state,
      worker_count=data.worker_count,
    )

  def frozen():
    return {
      'text': student.load_encoder(config),
      'teacher': part(config.teacher or config.weights, 'dit', config.scan),
    }

  return TrainTask(
    init=functools.partial(student.init, config),
    method=functools.partial(
      student.method, functools.partial(loss, config, negative)
    ),
    batches=batches,
    config=student.model_config(config),
    load=functools.partial(student.load, config),
    frozen=frozen,
    rules=rules.TRANSFORMER,
  )


def loss(config: ConsistencyTraining, negative, frozen, params, batch, key):
  """Disagreement on one batch of cached latents.

  Args:
    config: settings.
    negative: ids and mask `[1, text_len]` of the negative prompt.
    frozen: text encoder, teacher and the student's average.
    params: the student.
    batch: of `loaders.latent_batches`.
    key: randomness of levels and noise.
  """
  x0 = batch['latents'].astype(jnp.float32)
  plan = student.causal_plan(config, x0, 'teacher')
  text = student.encode(config, frozen, batch['ids'], batch['mask'])
  aim = frozen['average'] if config.target == 'average' else params
  return consistency.loss(
    student.field(config, params['dit'], text, plan),
    student.field(config, aim['dit'], text, plan),
    x0,
    key,
    config.objective,
    _teacher(config, negative, frozen, text, plan),
    batch['weight'] > 0,
  )


def _teacher(config: ConsistencyTraining, negative, frozen, text, plan):
  """The teacher's velocity with guidance."""
  if config.guidance == 1.0:
    return student.field(config, frozen['teacher'], text, plan)
  ids, mask = negative
  empty = student.encode(config, frozen, ids, mask)
  both = jnp.concatenate([text, jnp.broadcast_to(empty, text.shape)])
  velocity = student.field(config, frozen['teacher'], both, plan)

  def guided(x, t):
    v = velocity(jnp.concatenate([x, x]), jnp.concatenate([t, t]))
    cond, uncond = jnp.split(v, 2)
    return solvers.guide(cond, uncond, config.guidance)

  return guided


def exported(config: ConsistencyTraining, ema) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship."""
  return student.exported(config, ema, student.model_config(config))
