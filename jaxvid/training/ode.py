"""ODE regression as a training task: from many ticks to few, in one pass.

Sources: CausVid section 4.2; Self-Forcing `model/ode_regression.py`; Causal
Forcing (arXiv 2602.02214).
"""

import dataclasses
import functools
from typing import Any, Literal

import jax.numpy as jnp

from jaxvid.data import loaders
from jaxvid.diffusion import describe, flow
from jaxvid.errors import UserError
from jaxvid.objectives import regression
from jaxvid.objectives.regression import RegressionConfig
from jaxvid.parallel import rules
from jaxvid.training import student
from jaxvid.training.loop import TrainTask
from jaxvid.training.student import StudentConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ODEConfig(StudentConfig):
  """A student and the trajectories it learns from.

  Attributes:
    pairs: folder of cached trajectories (task `ode_pairs`).
    batch: clips per step.
    frames: latent frames per clip F, the first ones.
    schedule: the student's ticks; their time steps must be stored.
    form: 'parallel' (pairs of the bidirectional teacher) or 'causal' (each
      chunk sees the clean ends before it; pairs of a causal model).
    context_t: time step of the past in the causal form.
    clean: draw the clean end as a level too, as CausVid's list does.
    worker_count: processes that prepare batches.
  """

  pairs: str
  batch: int = 64
  frames: int = 21
  schedule: describe.Spec = dataclasses.field(
    default_factory=lambda: describe.Spec('self_forcing')
  )
  form: Literal['parallel', 'causal'] = 'parallel'
  context_t: float = 0.0
  clean: bool = False
  worker_count: int = 0

  @property
  def levels(self) -> tuple[float, ...]:
    """Time steps of the student's ticks, falling."""
    return student_levels(self.schedule)

  @property
  def regression(self) -> RegressionConfig:
    """Settings of the loss."""
    times = (*self.levels, 0.0) if self.clean else self.levels
    return RegressionConfig(times, self.chunk, self.form, self.context_t)


def student_levels(spec: describe.Spec) -> tuple[float, ...]:
  """Time steps of a student's ticks, falling; sigma is exactly t / 1000."""
  if spec.table:
    raise UserError(
      'schedule.table snaps noise levels; those of ODE pairs are exact'
    )
  schedule = describe.build(spec)
  if schedule.bidirectional:
    raise UserError(
      f"schedule {spec.name!r} is a teacher's; give the student's ticks"
    )
  return schedule.levels()


def ode_task(config: ODEConfig) -> TrainTask:
  """Trains `{'dit': ...}` to jump to the end of cached trajectories."""
  tokenizer = student.open_tokenizer(config)

  def batches(seed, state):
    return loaders.trajectory_batches(
      config.pairs,
      tokenizer,
      levels=config.levels,
      batch=config.batch,
      frames=config.frames,
      seed=seed,
      state=state,
      worker_count=config.worker_count,
    )

  return TrainTask(
    init=functools.partial(student.init, config),
    method=functools.partial(student.method, functools.partial(loss, config)),
    batches=batches,
    config=model_config(config),
    load=functools.partial(student.load, config),
    frozen=lambda: {'text': student.load_encoder(config)},
    rules=rules.TRANSFORMER,
  )


def model_config(config: ODEConfig) -> dict[str, Any]:
  """What is needed to build the student again and to stream it; JSON."""
  schedule = dataclasses.asdict(config.schedule)
  return {**student.model_config(config), 'schedule': schedule}


def loss(config: ODEConfig, frozen, params, batch, key):
  """Error of one batch of trajectories."""
  text = student.encode(config, frozen, batch['ids'], batch['mask'])
  trajectory = batch['trajectory'].astype(jnp.float32)
  forcing = 'teacher' if config.form == 'causal' else 'diffusion'
  plan = student.causal_plan(config, trajectory, forcing)
  velocity = student.field(config, params['dit'], text, plan)

  def predict(x, t):
    return flow.to_x0(x, velocity(x, t), flow.sigma_at(t))

  return regression.loss(predict, trajectory, key, config.regression)


def exported(config: ODEConfig, ema) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship."""
  return student.exported(config, ema, model_config(config))
