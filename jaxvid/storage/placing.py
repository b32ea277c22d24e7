"""Arrays on their way to a device, several at a time."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax

_AT_ONCE = 4


def place_all(
  put: Callable[[Any, Any], Any],
  tree: Any,
  is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
  """A tree of `put(path, leaf)`: while one travels, others are read.

  Args:
    put: makes an array of a leaf, which may be a view of a file; called by
      several threads.
    tree: of arrays.
    is_leaf: further leaves, see `jax.tree.map`.
  """
  leaves, structure = jax.tree.flatten_with_path(tree, is_leaf=is_leaf)
  device = jax.config.jax_default_device  # Threads have their own.

  def one(item):
    with jax.default_device(device):
      return put(*item)

  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    return jax.tree.unflatten(structure, pool.map(one, leaves))
