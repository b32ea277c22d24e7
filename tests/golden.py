"""Reference data computed by the official implementations."""

import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).parent / 'goldens'


def path(name: str) -> pathlib.Path:
  """Path of a file or folder of reference data, e.g. `dit/causal.npz`."""
  return ROOT / name


def load(name: str) -> dict[str, np.ndarray]:
  """All arrays of one `.npz` file, e.g. `load('dit/causal.npz')`."""
  with np.load(path(name), allow_pickle=False) as data:
    return {key: data[key] for key in data.files}


def assert_close(actual, reference, relative: bool = False) -> None:
  """The golden gate: max error <= 1e-4 * max(1, max|reference|).

  Args:
    actual: array computed by this library.
    reference: stored array of the same shape.
    relative: measure against max|reference| alone (for gradients).
  """
  actual = np.asarray(actual, np.float64)
  reference = np.asarray(reference, np.float64)
  assert actual.shape == reference.shape, (actual.shape, reference.shape)
  scale = np.abs(reference).max()
  if not relative:
    scale = max(1.0, scale)
  error = np.abs(actual - reference).max()
  assert error <= 1e-4 * scale, f'error {error:.3g} > 1e-4 * {scale:.3g}'
