"""What a training step of long videos needs of memory, by how it is done.

  python benchmarks/tuning_memory.py [size] [batch]

Compiles one step of `configs/shapes/longlive_long.py` (size nano, batch 4)
for streaming long tuning of 60 s and of 240 s and for naive tuning of whole
videos of 5 to 60 s, runs none of them, and prints the compiler's own account:
arguments (weights, state, batch) and temporary memory. Needs the VAE and the
tokenizer that ship, and no trained student.
"""

import argparse
import dataclasses
import functools

import jax
import numpy as np

from jaxvid import config as config_lib
from jaxvid import config_files
from jaxvid.convert import specs
from jaxvid.main import task_module
from jaxvid.models.layers import stack_layers
from jaxvid.training import autoencoder, distillation, matching, shapes
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.loop import LoopConfig
from jaxvid.training.rollout import RolloutConfig

NAIVE = {5: 7, 20: 27, 60: 80}  # seconds -> chunks


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  sizes = {'choices': shapes.SIZES, 'default': 'nano'}
  parser.add_argument('size', nargs='?', **sizes)
  parser.add_argument('batch', nargs='?', type=int, default=4)
  flags = parser.parse_args()
  measure(flags.size, flags.batch)


def measure(size: str, batch: int) -> None:
  """Compiles all arms and prints a line each."""
  for seconds in ('60', '240'):
    config, loop = load(f'configs/shapes/longlive_long.py:{size},{seconds}')
    show(f'streaming, {seconds} s', config, loop, batch)
  config, loop = load(f'configs/shapes/longlive_long.py:{size},naive')
  for seconds, chunks in NAIVE.items():
    whole = RolloutConfig(chunks, chunks)
    naive = dataclasses.replace(config, rollout=whole)
    show(f'naive, {seconds} s', naive, loop, batch)


def load(spec: str) -> tuple[DistillConfig, LoopConfig]:
  """Settings of a training, scanned over layers."""
  made, _ = config_files.load_config(spec)
  task = task_module(made.task)
  with made.unlocked():
    del made['task']
  config_lib.complete(task.Config, made)
  config = config_lib.from_dict(task.Config, made)
  return dataclasses.replace(config.distill, scan=True), config.loop


def show(name: str, config: DistillConfig, loop: LoopConfig, batch: int):
  """Compiles one step and prints what it needs."""
  data = dataclasses.replace(config.data, batch=batch)
  config = dataclasses.replace(config, data=data)
  rows = config.dit.text_len
  negative = np.zeros((1, rows), np.int32), np.ones((1, rows), bool)
  codec = autoencoder.load_vae(config.vae)[0] if config.vae else None
  method = matching.method(config, loop, negative, codec)
  init = functools.partial(distillation.init, config)
  state = jax.eval_shape(lambda k: method.create(init(k)), jax.random.key(0))
  dit, teacher = (
    jax.eval_shape(stack_layers, specs.abstract('dit', sizes))
    for sizes in (config.dit, config.teacher_dit or config.dit)
  )
  frozen = {
    'teacher': teacher,
    'text': specs.abstract('text', config.text),
    'base': {'dit': dit, 'critic': dit},
  }
  if config.vae:
    frozen['vae'] = jax.eval_shape(lambda: autoencoder.load_vae(config.vae)[1])
  ids = jax.ShapeDtypeStruct((batch, rows), np.int32)
  mask = jax.ShapeDtypeStruct((batch, rows), bool)
  inputs = {'ids': ids, 'mask': mask, 'next_ids': ids, 'next_mask': mask}
  step = jax.jit(method.update, donate_argnums=0)
  done = step.lower(state, frozen, inputs, jax.random.key(0)).compile()
  memory = done.memory_analysis()
  print(
    f'{name:16s} temporary {memory.temp_size_in_bytes / 2**20:8.1f} MiB, '
    f'arguments {memory.argument_size_in_bytes / 2**20:8.1f} MiB',
    flush=True,
  )


if __name__ == '__main__':
  main()
