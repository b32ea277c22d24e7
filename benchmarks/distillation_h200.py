"""Distribution matching of Wan2.1, one training step compiled for 64 H200s.

  .venv-h200/bin/python -m benchmarks.distillation_h200
  .venv-h200/bin/python -m benchmarks.distillation_h200 --recipe=self_forcing
  .venv-h200/bin/python -m benchmarks.distillation_h200 --layers=2

The whole step of `configs/wan/<recipe>.py:train` (student and critic of 1.3 B,
teacher of 14 B, one clip of 21 latents at 480 x 832 per device) is compiled on
a machine without a GPU. Printed are bytes per device and bytes per collective,
as the compiled program has them; nothing is timed. Parameters, averages,
optimiser states and the frozen teacher lie in parts on all devices (`fsdp`).
Prompts come in encoded: the text encoder is left out.

A collective inside a loop is listed with what it moves once; `loop` says so.
`--layers` takes the first blocks of every network alone. Needs the dependencies
of this repository beside jax's CUDA wheels (`make test-h200`).
"""

import argparse
import dataclasses
import functools
import json
import time

from benchmarks import h200  # Before jax is imported.

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.aapt_h200 import collectives
from jaxvid import config as configs
from jaxvid import config_files
from jaxvid.parallel import mesh as meshes
from jaxvid.parallel import rules
from jaxvid.tasks.train import Config
from jaxvid.training import distillation, matching
from jaxvid.training.scores import Texts


def load(args: argparse.Namespace) -> Config:
  """The recipe, with as many layers as asked for."""
  raw, _ = config_files.load_config(f'configs/wan/{args.recipe}.py:train')
  with raw.unlocked():
    del raw['task']
  configs.complete(Config, raw)
  config = configs.from_dict(Config, raw)
  distill = config.distill

  def cut(sizes):
    layers = min(args.layers or sizes.num_layers, sizes.num_layers)
    return dataclasses.replace(sizes, num_layers=layers)

  distill = dataclasses.replace(
    distill,
    dit=cut(distill.dit),
    teacher_dit=cut(distill.teacher_dit),
    data=dataclasses.replace(distill.data, batch=args.devices),
    backend='cudnn',  # There is no device to choose by.
  )
  return dataclasses.replace(config, distill=distill)


def networks(config, key) -> dict:
  """Shapes of the frozen networks, in the type of computation."""
  dtype = jnp.dtype(config.dtype)

  def shapes(network):
    def init(key):
      x = jnp.zeros((1, 1, 2, 2, config.dit.in_dim))
      text = jnp.zeros((1, 1, config.dit.text_dim))
      return network.init(key, x, jnp.zeros(1), text)['params']

    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
      jax.eval_shape(init, key),
    )

  held = {'teacher': shapes(config.teacher_network)}
  if config.flow is not None and config.target == 'causal':
    held['causal'] = shapes(config.network)
  return held


def abstract(config: Config, mesh):
  """The step as a function, its abstract arguments, places of the state."""
  distill = config.distill
  method = matching.method(distill, config.loop, (None, None))
  key = jax.eval_shape(lambda: jax.random.key(0))
  init = functools.partial(distillation.init, distill)
  state = jax.eval_shape(lambda key: method.create(init(key)), key)
  places = meshes.tree_shardings(state, mesh, rules.TRANSFORMER)
  frozen = networks(distill, key)
  held = meshes.tree_shardings(frozen, mesh, rules.TRANSFORMER)
  per_batch = meshes.batch_sharding(mesh)
  size = distill.data.batch
  text = (size, distill.dit.text_len, distill.dit.text_dim)
  texts = jax.ShapeDtypeStruct(text, jnp.bfloat16, sharding=per_batch)
  batch = {'prompt': texts, 'negative': texts}
  if distill.real_clips:
    clip = (size, distill.frames, *distill.size, distill.dit.out_dim)
    batch['latents'] = jax.ShapeDtypeStruct(
      clip, jnp.float32, sharding=per_batch
    )
  put = functools.partial(jax.tree.map, _placed)
  key = _placed(key, NamedSharding(mesh, PartitionSpec()))
  return method.update, (put(state, places), put(frozen, held), batch, key)


def _placed(leaf, place):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def count(tree) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def main() -> None:
  """Compiles and prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--recipe',
    default='diagdistill',
    choices=('diagdistill', 'self_forcing', 'causvid'),
  )
  parser.add_argument('--layers', type=int, default=0, help='0 = all')
  parser.add_argument('--devices', type=int, default=64)
  parser.add_argument('--output', default='', help='a JSON file')
  args = parser.parse_args()
  # Prompts come in encoded: the encoder is not what this looks at.
  matching._encode = lambda config, frozen, batch, negative: Texts(
    batch['prompt'], batch['negative']
  )
  mesh = h200.mesh({'data': 1, 'fsdp': args.devices, 'context': 1, 'tensor': 1})
  config = load(args)
  began = time.perf_counter()
  with jax.set_mesh(mesh):
    update, specs = abstract(config, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, specs[0])
    jitted = jax.jit(update, donate_argnums=0, out_shardings=(places, None))
    executable = jitted.lower(*specs).compile()
  memory = executable.memory_analysis()
  state, frozen = specs[:2]
  result = {
    'settings': vars(args),
    'mesh': dict(mesh.shape),
    'student_parameters': count(state.params['dit']),
    'critic_parameters': count(state.params['critic']),
    'teacher_parameters': count(frozen['teacher']),
    'compile_s': round(time.perf_counter() - began),
    'per_device_gb': {
      'arguments': memory.argument_size_in_bytes / 1e9,
      'temporary': memory.temp_size_in_bytes / 1e9,
      'total': (memory.argument_size_in_bytes + memory.temp_size_in_bytes)
      / 1e9,
    },
    'collectives_gb': collectives(executable.as_text()),
  }
  text = json.dumps(result, indent=1)
  if args.output:
    with open(args.output, 'w') as file:
      file.write(text + '\n')
  print(text)


if __name__ == '__main__':
  main()
