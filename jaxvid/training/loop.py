"""The training loop: one readable story for every model of this library."""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvid.errors import UserError
from jaxvid.parallel import mesh as meshes
from jaxvid.training import checkpoint, optimizer, report
from jaxvid.training import state as states
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.state import Params, TrainState

Batch = Mapping[str, Any]
Metrics = Mapping[str, jax.Array]


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


@dataclasses.dataclass(frozen=True)
class TrainTask:
  """What is trained: plain functions.

  Attributes:
    init: key -> parameters.
    loss: (params, batch, key) -> (scalar, dict of scalars). Pure; the mean
      over the batch, so that equal parts can be averaged.
    batches: (seed, state or None) -> resumable iterator of dicts of arrays
      with a leading batch axis. The state is what `get_state` returned; JSON.
    config: JSON values that say how to build the model; saved with it.
    sample: optional (params, key) -> dict of uint8 videos [N, F, H, W, 3].
    adapt: optional; brings weights given by `init_from` into the layout that
      `init` makes.
    rules: where parameters live on a mesh, see `parallel.mesh`.
  """

  init: Callable[[jax.Array], Params]
  loss: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
  batches: Callable[[int, dict[str, Any] | None], BatchIterator]
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  sample: Callable[[Params, jax.Array], Mapping[str, np.ndarray]] | None = None
  adapt: Callable[[Params], Params] | None = None
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
    tx = optimizer.create(settings.optimizer, settings.steps)
    state, position = _start(settings, task, tx, manager, mesh)
    start = int(state.step)
    summaries = report.Summaries(workdir, start)
    with (
      contextlib.closing(summaries),
      report.progress(start, settings.steps) as show,
    ):
      return _run(
        settings, task, tx, mesh, manager, state, position, summaries, show
      )


def _run(
  settings, task, tx, mesh, manager, state, position, summaries, show
) -> TrainState:
  """The loop itself."""
  _, step_key, sample_key = _keys(settings.seed)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  update = jax.jit(
    make_step(settings, task, tx, step_key),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )
  batches = task.batches(settings.seed, position)
  place = _placer(mesh)
  pending: list[Metrics] = []
  saved, saved_at = int(state.step), time.monotonic()
  with _stop_requested() as stopped:
    for step in range(int(state.step) + 1, settings.steps + 1):
      state, metrics = update(state, place(next(batches)))
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


def make_step(
  settings: LoopConfig,
  task: TrainTask,
  tx: optax.GradientTransformation,
  key: jax.Array,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """One optimiser step as a pure function of state and batch."""
  rate = optimizer.schedule(settings.optimizer, settings.steps)
  gradient = jax.value_and_grad(task.loss, has_aux=True)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    now = jax.random.fold_in(key, state.step)
    (loss, metrics), grads = _accumulate(
      gradient, state.params, batch, now, settings.microbatches
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      **metrics,
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      'learning_rate': rate(state.step),
    }
    state = TrainState(
      step=state.step + 1,
      params=params,
      ema=states.update_ema(state.ema, params, state.step, settings.ema_decay),
      opt_state=opt_state,
    )
    return state, metrics

  return step


def _accumulate(gradient, params, batch, key, parts: int):
  """Mean loss, metrics and gradients over `parts` equal parts of a batch."""
  if parts == 1:
    return gradient(params, batch, key)

  def split(leaf):
    if leaf.shape[0] % parts:
      raise UserError(
        f'microbatches={parts} does not divide the batch of {leaf.shape[0]}'
      )
    # Strided, so that each part stays spread over the devices.
    rest = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
    return jnp.swapaxes(rest, 0, 1)

  def body(total, part):
    index, piece = part
    out = gradient(params, piece, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, out), None

  pieces = jax.tree.map(split, batch)
  first = jax.tree.map(lambda leaf: leaf[0], pieces)
  shapes = jax.eval_shape(gradient, params, first, key)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(body, zeros, (jnp.arange(parts), pieces))
  return jax.tree.map(lambda leaf: leaf / parts, total)


def _start(settings, task, tx, manager, mesh):
  """The state to start from and that of the data iterator, if any."""
  init_key, _, _ = _keys(settings.seed)

  def init(key):
    return states.create(task.init(key), tx)

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
  if not settings.init_from:
    return jax.jit(init, out_shardings=places)(init_key), None
  _, params = checkpoint.load_params(settings.init_from, dtype='float32')
  if task.adapt is not None:
    params = task.adapt(params)
  checkpoint.check_tree(params, template.params, settings.init_from)
  create = jax.jit(lambda tree: states.create(tree, tx), out_shardings=places)
  return create(jax.device_put(params, places.params)), None


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
  """Means over the steps since the last line."""
  fetched = jax.device_get(metrics)
  return {
    name: float(np.mean([step[name] for step in fetched]))
    for name in fetched[0]
  }


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
