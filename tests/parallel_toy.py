"""Runs in a process with 8 host devices: one device against a mesh."""

import sys

import jax
import numpy as np
import training_toy as toy

from jaxvid.parallel import mesh, rules
from jaxvid.training import checkpoint, loop

jax.config.update('jax_num_cpu_devices', 8)


def run(folder, steps, **sizes):
  settings = toy.settings(steps, mesh=mesh.MeshConfig(**sizes), microbatches=2)
  task = toy.task(rules=rules.TRANSFORMER)
  return loop.train(settings, task, folder)


def assert_close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), a, b)


def main(folder):
  one = run(f'{folder}/one', 4)
  many = run(f'{folder}/many', 4, data=2, fsdp=2, tensor=2)
  assert_close(jax.device_get(one), jax.device_get(many))
  kernel = many.params['ffn_0']['kernel']
  spec = jax.P('fsdp', 'tensor')
  assert kernel.sharding.spec == spec, kernel.sharding
  moments = jax.tree.leaves_with_path(many.opt_state)
  specs = [
    leaf.sharding.spec
    for path, leaf in moments
    if mesh.leaf_name(path).endswith('ffn_0/kernel')
  ]
  assert specs == [spec] * 2, specs
  # The same run goes on upon another mesh, and its weights load anywhere.
  longer = run(f'{folder}/many', 6, fsdp=4, tensor=2)
  _, params = checkpoint.load_params(f'{folder}/many', 'params')
  jax.tree.map(np.testing.assert_array_equal, params, longer.params)
  assert_close(jax.device_get(run(f'{folder}/one', 6)), jax.device_get(longer))


if __name__ == '__main__':
  main(sys.argv[1])
