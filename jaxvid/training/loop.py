"""The training loop: one readable story for every model of this library."""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from jaxvid.errors import UserError, check_regex
from jaxvid.parallel import mesh as meshes
from jaxvid.training import checkpoint, report
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.state import Params, TrainState
from jaxvid.training.step import Batch, Loss, Method, Metrics, single


class BatchIterator(Protocol):
  """An endless, resumable iterator; grain's iterators are such."""

  def __next__(self) -> Mapping[str, np.ndarray]: ...

  def get_state(self) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """Settings of a run.

  Attributes:
    steps: optimiser steps of the whole training.
    seed: of parameters, data order and noise.
    microbatches: parts of a batch whose gradients are averaged before a
      step; must divide the batch.
    ema_decay: long-run decay of the averaged weights.
    log_every: steps between progress lines and scalars.
    sample_every: steps between sample videos; 0 = none.
    save_every: steps between checkpoints; 0 = by time only.
    save_minutes: minutes between checkpoints; 0 = by steps only.
    keep: number of checkpoints kept.
    init_from: start from these weights (a shipped folder or another run's
      workdir) instead of random ones.
    init_only: regular expression; of these weights only those whose path
      (`text/shared/embedding`) it finds; '' = all.
    optimizer: settings of the optimiser.
    mesh: devices.
  """

  steps: int = 1000
  seed: int = 0
  microbatches: int = 1
  ema_decay: float = 0.999
  log_every: int = 20
  sample_every: int = 0
  save_every: int = 0
  save_minutes: float = 5.0
  keep: int = 2
  init_from: str = ''
  init_only: str = ''
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  mesh: meshes.MeshConfig = dataclasses.field(default_factory=meshes.MeshConfig)

  def __post_init__(self):
    for name in ('steps', 'microbatches', 'log_every', 'keep'):
      if getattr(self, name) < 1:
        raise UserError(f'{name} must be >= 1, not {getattr(self, name)}')
    if not 0 <= self.ema_decay < 1:
      raise UserError(f'ema_decay must be in [0, 1), not {self.ema_decay}')
    if self.init_only and not self.init_from:
      raise UserError('init_only takes a part of init_from, which is not given')
    check_regex('init_only', self.init_only)


@dataclasses.dataclass(frozen=True)
class TrainTask:
  """What is trained: plain functions.

  Attributes:
    init: key -> parameters.
    batches: (seed, state or None) -> resumable iterator of dicts of arrays
      with a leading batch axis. The state is what `get_state` returned; JSON.
    loss: (params, batch, key) -> (scalar, dict of scalars). Pure; the mean
      over the batch, so that equal parts can be averaged.
    method: settings -> how to learn, where one loss is not enough; then
      `loss` is not used.
    config: JSON values that say how to build the model; saved with it.
    sample: optional (params, key) -> dict of uint8 videos [N, F, H, W, 3].
    adapt: optional; brings weights given by `init_from` into the layout that
      `init` makes.
    load: optional; parameters to start a fresh run from, instead of `init`'s
      random ones.
    frozen: optional; loads networks that are used and never trained. They
      live on the mesh like the others and are in no checkpoint.
    rules: where parameters live on a mesh, see `parallel.mesh`.
  """

  init: Callable[[jax.Array], Params]
  batches: Callable[[int, dict[str, Any] | None], BatchIterator]
  loss: Loss | None = None
  method: Callable[['LoopConfig'], Method] | None = None
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  sample: Callable[[Params, jax.Array], Mapping[str, np.ndarray]] | None = None
  adapt: Callable[[Params], Params] | None = None
  load: Callable[[], Params] | None = None
  frozen: Callable[[], Params] | None = None
  rules: meshes.Rules = ()


def train(
  settings: LoopConfig, task: TrainTask, workdir: str | os.PathLike
) -> TrainState:
  """Trains to `settings.steps`, resuming what `workdir` holds.

  A run that was killed continues from its last checkpoint and ends with the
  very same bits as one left alone. Ctrl-C and SIGTERM save first.

  Raises:
    UserError: the loss is not finite (the last good checkpoint stays), or a
      checkpoint does not fit.
    KeyboardInterrupt: after Ctrl-C, with a checkpoint saved.
  """
  mesh = meshes.make_mesh(settings.mesh)
  workdir = pathlib.Path(workdir)
  with (
    jax.set_mesh(mesh),
    contextlib.closing(
      checkpoint.open_manager(workdir, settings.keep)
    ) as manager,
  ):
    method = _method(settings, task)
    state, position = _start(settings, task, method, manager, mesh)
    frozen = _frozen(task, mesh)
    start = int(state.step)
    summaries = report.Summaries(workdir, start)
    with (
      contextlib.closing(summaries),
      report.progress(start, settings.steps) as show,
    ):
      return _run(
        settings,
        task,
        method,
        mesh,
        manager,
        state,
        frozen,
        position,
        summaries,
        show,
      )


def _run(
  settings,
  task,
  method,
  mesh,
  manager,
  state,
  frozen,
  position,
  summaries,
  show,
) -> TrainState:
  """The loop itself."""
  _, step_key, sample_key = _keys(settings.seed)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

  def advance(state, frozen, batch):
    key = jax.random.fold_in(step_key, state.step)
    return method.update(state, frozen, batch, key)

  update = jax.jit(advance, donate_argnums=0, out_shardings=(shardings, None))
  batches = task.batches(settings.seed, position)
  place = _placer(mesh)
  pending: list[Metrics] = []
  saved, saved_at = int(state.step), time.monotonic()
  with _stop_requested() as stopped:
    for step in range(int(state.step) + 1, settings.steps + 1):
      state, metrics = update(state, frozen, place(next(batches)))
      position = batches.get_state()
      if pending:  # the step before: checking it costs no waiting
        _check_finite(pending[-1], step - 1, saved)
      pending.append(metrics)
      last = step == settings.steps or bool(stopped)
      if step % settings.log_every == 0 or last:
        values = _mean(pending)
        _check_finite(metrics, step, saved)
        show(step, {'loss': values['loss']})
        summaries.scalars(step, values)
        pending = []
      late = (time.monotonic() - saved_at) / 60 >= settings.save_minutes > 0
      due = settings.save_every and step % settings.save_every == 0
      if due or late or last:
        _check_finite(metrics, step, saved)
        checkpoint.save(manager, state, position, task.config)
        saved, saved_at = step, time.monotonic()
      if stopped:
        manager.wait_until_finished()
        _leave(stopped[0])
      if settings.sample_every and step % settings.sample_every == 0:
        if task.sample is not None:
          key = jax.random.fold_in(sample_key, step)
          summaries.videos(step, task.sample(state.ema, key))
  manager.wait_until_finished()
  return state


def _method(settings: LoopConfig, task: TrainTask) -> Method:
  """The task's own way to learn, or plain descent on its loss."""
  if task.method is not None:
    return task.method(settings)
  if task.loss is None:
    raise ValueError('a task needs a loss or a method')
  return single(
    task.loss,
    settings.optimizer,
    settings.steps,
    settings.microbatches,
    settings.ema_decay,
  )


def _start(settings, task, method, manager, mesh):
  """The state to start from and that of the data iterator, if any."""
  init_key, _, _ = _keys(settings.seed)

  def init(key):
    return method.create(task.init(key))

  template = jax.eval_shape(init, init_key)
  places = meshes.tree_shardings(template, mesh, task.rules)
  if manager.latest_step() is not None:
    template = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=place
      ),
      template,
      places,
    )
    return checkpoint.restore(manager, template)
  if settings.init_from:
    _, params = checkpoint.load_params(settings.init_from, dtype='float32')
    if task.adapt is not None:
      params = task.adapt(params)
    if settings.init_only:
      params = _some(settings, params, jax.jit(task.init)(init_key))
  elif task.load is not None:
    params = task.load()
  else:
    return jax.jit(init, out_shardings=places)(init_key), None
  where = settings.init_from or 'the weights to start from'
  checkpoint.check_tree(params, template.params, where)
  create = jax.jit(method.create, out_shardings=places)
  return create(jax.device_put(params, places.params)), None


def _some(settings: LoopConfig, given: Params, fresh: Params) -> Params:
  """`fresh` but for what `init_only` finds, which comes from `given`."""
  leaves = {
    name: leaf
    for path, leaf in jax.tree.leaves_with_path(given)
    if re.search(settings.init_only, name := meshes.leaf_name(path))
  }
  if not leaves:
    raise UserError(
      f'init_only={settings.init_only!r} finds nothing in {settings.init_from}'
    )

  def pick(path, leaf):
    return leaves.get(meshes.leaf_name(path), leaf)

  return jax.tree.map_with_path(pick, fresh)


def _frozen(task: TrainTask, mesh) -> Params:
  """The task's frozen networks on the mesh."""
  if task.frozen is None:
    return None
  params = task.frozen()
  return jax.device_put(params, meshes.tree_shardings(params, mesh, task.rules))


def _keys(seed: int):
  """Independent keys for parameters, steps and samples."""
  return jax.random.split(jax.random.key(seed), 3)


def _placer(mesh) -> Callable[[Mapping[str, np.ndarray]], Batch]:
  """Puts this host's part of a batch onto the mesh."""
  sharding = meshes.batch_sharding(mesh)
  parts = math.prod(mesh.shape[axis] for axis in ('data', 'fsdp'))

  def place(batch):
    for name, leaf in batch.items():
      if leaf.shape[0] * jax.process_count() % parts:
        raise UserError(
          f'a batch of {leaf.shape[0]} ({name}) cannot be split over {parts} '
          'devices (mesh.data * mesh.fsdp)'
        )
    return jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(sharding, x),
      dict(batch),
    )

  return place


def _mean(metrics: list[Metrics]) -> dict[str, float]:
  """Means over the steps since the last line.

  What a step does not have (a student that waits for its critic) is not a
  number there: it is left out, and so is what no step had.
  """
  fetched = jax.device_get(metrics)
  means = {}
  for name in fetched[0]:
    values = np.array([step[name] for step in fetched], np.float64)
    known = values[~np.isnan(values)]
    if len(known):
      means[name] = float(np.mean(known))
  return means


def _check_finite(metrics: Metrics, step: int, saved: int) -> None:
  """Stops a run that has diverged, before it can be saved."""
  loss, norm = float(metrics['loss']), float(metrics['grad_norm'])
  if not (math.isfinite(loss) and math.isfinite(norm)):
    kept = f'checkpoint of step {saved} is kept' if saved else 'none was saved'
    raise UserError(
      f'training diverged at step {step} (loss {loss}, gradient norm {norm}); '
      f'{kept}; try a lower optimizer.learning_rate'
    )


@contextlib.contextmanager
def _stop_requested() -> Iterator[list[int]]:
  """Yields a list that receives the number of a stop signal.

  The first Ctrl-C or SIGTERM lets the current step end; a second Ctrl-C
  interrupts at once.
  """
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield received
    return

  def remember(number, frame):
    del frame
    if received:
      raise KeyboardInterrupt
    received.append(number)

  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.signal(number, remember) for number in numbers}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _leave(number: int) -> None:
  """Ends a stopped run the way its signal would have."""
  if number == signal.SIGINT:
    raise KeyboardInterrupt
  raise SystemExit(128 + number)
