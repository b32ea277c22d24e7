"""Cached solver trajectories on disk: pairs of noisy and clean latents.

This module imports tensorflow_datasets; import it only where it is used.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvid.data import shards
from jaxvid.errors import UserError


class TrajectoryShard(shards.Shard):
  """What a solver passed through on its way to a video, and the prompt."""


def write_shard(
  folder: pathlib.Path,
  index: int,
  shape: tuple[int, ...],
  examples: Iterable[Mapping[str, Any]],
) -> bool:
  """Writes one shard unless it is there; says whether it did.

  Args:
    folder: of the cache, see `shards.prepare`; its settings hold 'levels'.
    index: number of the shard.
    shape: of a trajectory, `[K + 1, F, H, W, C]`: the samples at the K levels,
      noisiest first, then the clean end.
    examples: dicts of 'trajectory' (float16) and 'prompt' (text); not touched
      when the shard is there.
  """
  features = {
    'trajectory': shards.array(tuple(shape)),
    'prompt': shards.text(),
  }
  return shards.write_shard(TrajectoryShard, folder, index, features, examples)


def open_shards(folder: str | pathlib.Path, count: int | None = None) -> list:
  """Random-access sources of the shards, see `shards.open_shards`."""
  return shards.open_shards(TrajectoryShard, folder, count, _missing(folder))


def read_levels(folder: str | pathlib.Path) -> tuple[float, ...]:
  """Time steps of the kept samples, K of them, noisiest first.

  The noise level of each is exactly t / 1000.

  Raises:
    UserError: no trajectories there.
  """
  if not (pathlib.Path(folder) / shards.SETTINGS).is_file():
    raise UserError(_missing(folder))
  settings = shards.read_settings(folder)
  try:
    return tuple(float(t) for t in settings['levels'])
  except (KeyError, TypeError, ValueError):
    raise UserError(f'{folder} is no cache of ODE pairs') from None


def find_levels(
  folder: str | pathlib.Path, wanted: Sequence[float]
) -> list[int]:
  """Where the wanted time steps are among the stored ones.

  Raises:
    UserError: one is not; it would be given a label that is not its own.
  """
  stored = np.asarray(read_levels(folder), np.float32)
  rows = []
  for t in wanted:
    (found,) = np.nonzero(stored == np.float32(t))
    if not len(found):
      have = ', '.join(f'{level:g}' for level in stored)
      raise UserError(
        f'{folder} holds ODE pairs at time steps {have}, not at {t:g}; make '
        'others: --config=configs/shapes/ode_pairs.py --config.schedule=... '
        '--config.target=...'
      )
    rows.append(int(found[0]))
  return rows


def _missing(folder: str | pathlib.Path) -> str:
  return (
    f'no ODE pairs in {folder}; make them first: python -m jaxvid.main '
    f'--config=configs/shapes/ode_pairs.py --config.target={folder}'
  )
