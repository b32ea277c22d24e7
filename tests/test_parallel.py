"""Meshes and sharding rules."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxvid.errors import UserError
from jaxvid.parallel import mesh, rules


def test_sharded_training_equals_one_device(tmp_path):
  tests = pathlib.Path(__file__).parent
  environment = {
    'PYTHONPATH': f'{tests.parent}:{tests}',
    'PATH': '',
    'JAX_PLATFORMS': 'cpu',
  }
  result = subprocess.run(
    [sys.executable, '-W', 'error', str(tests / 'parallel_toy.py'), tmp_path],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr[-3000:]


def make_fake_mesh(**sizes):
  shape = tuple(sizes.get(axis, 1) for axis in mesh.AXES)
  return jax.sharding.AbstractMesh(
    shape, mesh.AXES, axis_types=(AxisType.Auto,) * 4
  )


def specs(tree, **sizes):
  places = mesh.tree_shardings(tree, make_fake_mesh(**sizes), rules.TRANSFORMER)
  return jax.tree.map(lambda place: place.spec, places)


def leaf(*shape):
  return jax.ShapeDtypeStruct(shape, np.float32)


def test_rules_reach_stacked_and_plain_layers():
  attention = {'q': {'kernel': leaf(8, 8)}, 'o': {'kernel': leaf(8, 8)}}
  stacked = {'q': {'kernel': leaf(3, 8, 8)}, 'o': {'kernel': leaf(3, 8, 8)}}
  tree = {
    'blocks_0': {'self_attn': attention},
    'blocks': {'self_attn': stacked, 'modulation': leaf(3, 6, 8)},
  }
  found = specs(tree, fsdp=2, tensor=4)
  plain = found['blocks_0']['self_attn']
  assert plain['q']['kernel'] == PartitionSpec('fsdp', 'tensor')
  assert plain['o']['kernel'] == PartitionSpec('tensor', 'fsdp')
  stacked = found['blocks']['self_attn']
  assert stacked['q']['kernel'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert found['blocks']['modulation'] == PartitionSpec()


def test_an_axis_that_does_not_divide_stays_whole():
  tree = {'ffn_0': {'kernel': leaf(6, 9)}}
  found = specs(tree, fsdp=2, tensor=4)['ffn_0']['kernel']
  assert found == PartitionSpec('fsdp', None)


def test_one_device_mesh():
  made = mesh.make_mesh(mesh.MeshConfig())
  assert made.axis_names == mesh.AXES and made.size == 1


@pytest.mark.parametrize(
  'sizes', [{'data': 10**6}, {'data': 0}, {'data': -1, 'fsdp': -1}]
)
def test_impossible_mesh(sizes):
  with pytest.raises(UserError, match='mesh'):
    mesh.make_mesh(mesh.MeshConfig(**sizes))
