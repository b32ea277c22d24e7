"""The device mesh and where arrays live on it."""

import dataclasses
import math
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvid.errors import UserError

AXES = ('data', 'fsdp', 'context', 'tensor')
Rules = tuple[tuple[str, PartitionSpec], ...]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Number of devices along each axis; -1 (one axis only) = what is left.

  Attributes:
    data: copies of the model, each with its part of the batch.
    fsdp: parts of the parameters; the batch is split here too.
    context: parts of the sequence.
    tensor: parts of heads and hidden features.
  """

  data: int = 1
  fsdp: int = 1
  context: int = 1
  tensor: int = 1


def make_mesh(config: MeshConfig) -> Mesh:
  """A mesh with Auto axes over the first devices.

  Raises:
    UserError: the sizes do not fit the devices.
  """
  sizes = [getattr(config, axis) for axis in AXES]
  count = jax.device_count()
  if sizes.count(-1) > 1 or any(n == 0 or n < -1 for n in sizes):
    raise UserError(
      f'mesh sizes must be positive, with at most one -1, not {sizes}'
    )
  if -1 in sizes:
    rest = math.prod(n for n in sizes if n > 0)
    sizes[sizes.index(-1)] = max(1, count // rest)
  needed = math.prod(sizes)
  if needed > count:
    shape = ' x '.join(map(str, sizes))
    raise UserError(f'the mesh {shape} needs {needed} devices, found {count}')
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=jax.devices()[:needed],
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis of every batch array is split over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def split_batch(tree: Any, axis: int = 0) -> Any:
  """Splits `axis` of arrays made inside a step as its batch is split.

  What is computed from a batch inherits its place; what begins as zeros or
  noise has none, and might end up whole on every device. Outside of a mesh
  (`jax.set_mesh`) nothing happens.

  Args:
    tree: arrays under jit.
    axis: of the batch, in every one of them.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if not {'data', 'fsdp'} <= set(mesh.axis_names):
    return tree
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  spec = PartitionSpec(*(None,) * axis, ('data', 'fsdp'))

  def place(leaf):
    if parts == 1 or leaf.shape[axis] % parts:
      return leaf
    return jax.lax.with_sharding_constraint(leaf, spec)

  return jax.tree.map(place, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def leaf_name(path: tuple[Any, ...]) -> str:
  """Name of a leaf, e.g. `blocks/self_attn/q/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def tree_shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """A sharding for every leaf by the first rule whose pattern matches.

  Patterns are searched in the leaf's name, so `q/kernel` serves parameters,
  their average and both moments of the optimiser. Specs are aligned to the
  last axes of a leaf (a layer stack adds a leading axis). An axis that the
  mesh does not divide is left whole.

  Args:
    tree: arrays or shapes.
    mesh: the mesh.
    rules: (regular expression, spec) in order of precedence.
  """

  def place(path, leaf):
    name, shape = leaf_name(path), leaf.shape
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, _fit(spec, shape, mesh))
    return replicated(mesh)

  return jax.tree.map_with_path(place, tree)


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh):
  """`spec` on the last axes of `shape`, without axes that do not divide."""
  names = ((None,) * len(shape) + tuple(spec))[-len(shape) :] if shape else ()
  fitted = []
  for size, name in zip(shape, names, strict=True):
    group = name if isinstance(name, tuple) else (name,)
    parts = math.prod(mesh.shape[axis] for axis in group if axis)
    fitted.append(name if parts > 1 and size % parts == 0 else None)
  return PartitionSpec(*fitted)
