"""Tensors of any checkpoint file, for code that must not know of formats."""

import pathlib
from collections.abc import Mapping

import numpy as np


def read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
  """The tensors of a file or folder by name; see `convert.sources.read`."""
  from jaxvid.convert import sources

  return sources.read(path).tensors
