"""Checkpoints: of a run (exact resume) and of weights (to ship).

A run keeps `checkpoints/<step>/{params,ema,opt,data,config}`; each item can be
restored alone and onto another mesh. Shipped weights are folders of
`storage.weights`.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxvid.errors import UserError
from jaxvid.storage import weights
from jaxvid.training.state import TrainState

ITEMS = ('params', 'ema', 'opt', 'data', 'config')
Params = Any


def open_manager(
  workdir: str | os.PathLike, keep: int = 2
) -> ocp.CheckpointManager:
  """The checkpoints of a run; unfinished ones of a killed run are removed."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints'
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep,
    enable_async_checkpointing=True,
    cleanup_tmp_directories=True,
  )
  handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
  for item in ITEMS:
    handler, save, restore = (
      (ocp.JsonCheckpointHandler, ocp.args.JsonSave, ocp.args.JsonRestore)
      if item in ('data', 'config')
      else (
        ocp.StandardCheckpointHandler,
        ocp.args.StandardSave,
        ocp.args.StandardRestore,
      )
    )
    instance = handler()
    handlers.add(item, save, instance)
    handlers.add(item, restore, instance)
  try:
    return ocp.CheckpointManager(
      path, options=options, handler_registry=handlers
    )
  except OSError as error:
    raise UserError(f'cannot write checkpoints to {path}: {error}') from error


def save(
  manager: ocp.CheckpointManager,
  state: TrainState,
  data: Mapping[str, Any],
  config: Mapping[str, Any],
) -> None:
  """Saves a run; returns before the files are complete.

  Args:
    manager: from `open_manager`.
    state: state after the last finished step.
    data: state of the data iterator from which the next step continues.
    config: what is needed to build the model again; JSON.
  """
  if jax.default_backend() == 'cpu':
    # On the host a saved array is only a view of a buffer that the next
    # step will overwrite.
    state = jax.tree.map(jnp.copy, state)
  arrays = ocp.args.StandardSave
  opt = {'step': state.step, 'state': _without_empty(state.opt_state)}
  manager.save(
    int(state.step),
    args=ocp.args.Composite(
      params=arrays(state.params),
      ema=arrays(state.ema),
      opt=arrays(opt),
      data=ocp.args.JsonSave(dict(data)),
      config=ocp.args.JsonSave(dict(config)),
    ),
  )


def restore(
  manager: ocp.CheckpointManager, template: TrainState
) -> tuple[TrainState, dict[str, Any]]:
  """The latest state of a run and that of its data iterator.

  Args:
    manager: from `open_manager`; must hold a checkpoint.
    template: shapes, dtypes and, if set, shardings to restore onto
      (`jax.ShapeDtypeStruct` leaves).

  Raises:
    UserError: the checkpoint is damaged or belongs to another model.
  """
  step = manager.latest_step()
  where = pathlib.Path(manager.directory) / str(step)
  # Told apart here, because orbax's own complaint about shapes is a page.
  found = weights.metadata(where / 'params')
  check_tree(found, template.params, f'cannot resume from {where}')
  arrays = ocp.args.StandardRestore
  opt = {'step': template.step, 'state': _without_empty(template.opt_state)}
  try:
    items = manager.restore(
      step,
      args=ocp.args.Composite(
        params=arrays(template.params),
        ema=arrays(template.ema),
        opt=arrays(opt),
        data=ocp.args.JsonRestore(),
      ),
    )
  except Exception as error:  # orbax raises a dozen kinds
    raise UserError(
      f'cannot resume from {where}: {_first_line(error)}; give another '
      'workdir to start afresh'
    ) from error
  state = TrainState(
    step=items.opt['step'],
    params=items.params,
    ema=items.ema,
    opt_state=_with_empty(template.opt_state, items.opt['state']),
  )
  return state, items.data


def _without_empty(tree):
  """Without arrays of no elements, such as a sink of 0: orbax takes none."""
  return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _with_empty(template, found):
  """What `_without_empty` left out, put back."""

  def fill(want, leaf):
    if want.size:
      return leaf
    return jnp.zeros(want.shape, want.dtype, device=want.sharding)

  return jax.tree.map(fill, template, found)


def load_params(
  path: str | os.PathLike,
  item: str = 'ema',
  dtype: str | None = None,
  place: Callable[[np.ndarray], Any] = jnp.asarray,
) -> tuple[dict[str, Any], Params]:
  """Reads weights: a shipped folder or the latest checkpoint of a run.

  Args:
    path: folder written by `storage.weights.save`, or the workdir of a run.
    item: which weights of a run, 'ema' or 'params'.
    dtype: convert floating leaves to this, e.g. 'float32'.
    place: what becomes of each array; by default it goes to the default
      device.

  Returns:
    The config dict and the parameters.

  Raises:
    UserError: the folder is missing, damaged or no checkpoint of ours.
  """

  def put(array: np.ndarray) -> Any:
    floating = dtype and jnp.issubdtype(array.dtype, jnp.floating)
    return place(array.astype(dtype, copy=False) if floating else array)

  path = pathlib.Path(path).absolute()
  if not path.exists():
    raise UserError(f'no weights at {path}')
  if (path / 'config.json').is_file():
    return weights.load(path, put)
  if not (path / 'checkpoints').is_dir():
    raise UserError(
      f'{path} holds no jaxvid checkpoint (no config.json, no checkpoints/); '
      'use the convert task for other formats'
    )
  tree, config = _latest(path, item)
  return config, weights.read_tree(tree, put)


def check_tree(params: Params, expected: Params, where: str) -> None:
  """Raises UserError naming the first leaf that does not fit `expected`."""
  got = _shapes(params)
  want = _shapes(expected)
  for name in sorted(want.keys() | got.keys()):
    if name not in got:
      raise UserError(f'{where}: {name} is missing')
    if name not in want:
      raise UserError(f'{where}: {name} is not part of this model')
    if got[name] != want[name]:
      raise UserError(
        f'{where}: {name} has shape {got[name]}, the model needs {want[name]}'
      )


def _latest(path: pathlib.Path, item: str) -> tuple[pathlib.Path, dict]:
  """Folder of `item` in the latest checkpoint of a run, and its config."""
  steps = [
    int(entry.name)
    for entry in (path / 'checkpoints').iterdir()
    if entry.name.isdigit()
  ]
  if not steps:
    raise UserError(f'the run {path} has no finished checkpoint yet')
  folder = path / 'checkpoints' / str(max(steps))
  if not (folder / item).is_dir():
    raise UserError(f"{folder} holds no item '{item}'")
  config = json.loads((folder / 'config' / 'metadata').read_text())
  return folder / item, config


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree.leaves_with_path(params)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }


def _first_line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]
