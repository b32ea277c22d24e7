"""Times chunks of linear attention beside those of softmax windows.

  python benchmarks/linear_attention.py                  # small, 64 x 64
  python benchmarks/linear_attention.py wan_1_3b 480 832

Random weights of one size (nano, small, base, wan_1_3b), 4 ticks and a clean
one per chunk. Prints the median time of a chunk once every memory is full, and
what the memory weighs: sums are as large as ever, a window grows with its
latents. Rounds alternate between the memories. Not measured on a GPU.
"""

import argparse
import dataclasses
import time

import jax
import numpy as np

from jaxvid.diffusion import schedule as schedules
from jaxvid.memory import MemoryConfig
from jaxvid.stream import stream
from jaxvid.tasks import random_bundle

WINDOWS = {'S3W9': (3, 9), 'S0W21': (0, 21), 'S0W42': (0, 42)}
ROUNDS = 9


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  sizes = {'choices': random_bundle.SIZES, 'default': 'small'}
  parser.add_argument('size', nargs='?', **sizes)
  parser.add_argument('height', nargs='?', type=int, default=0)
  parser.add_argument('width', nargs='?', type=int, default=0)
  flags = parser.parse_args()
  measure(flags.size, flags.height, flags.width)


def measure(size: str, height: int, width: int) -> None:
  """Times all memories of one size of network."""
  bundle = random_bundle.make(size)
  height, width = height or bundle.size[0], width or bundle.size[1]
  dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  params = bundle.place('dit', dtype)
  config = bundle.configure('dit')
  grid = height // 16, width // 16
  settings, states, times = {}, {}, {}
  for name, (sink, window) in {'linear': (3, 9), **WINDOWS}.items():
    settings[name] = stream.Settings(
      dataclasses.replace(config, linear=name == 'linear'),
      MemoryConfig(*grid, sink, window),
      schedules.self_forcing(),
      dtype=dtype,
    )
    shape = (1, config.text_len, config.text_dim)
    text = jax.random.normal(jax.random.key(0), shape)
    key = jax.random.key(1)
    states[name] = stream.init(settings[name], params, text, key)
    times[name] = []
  weights = {
    name: sum(x.nbytes for x in jax.tree.leaves(state.memory))
    for name, state in states.items()
  }
  for i in range(42 // 3 + ROUNDS):  # The first chunks fill the memories.
    for name, own in settings.items():
      ticks = stream.chunk_ticks(own.schedule, i)
      step = stream.jitted_step(own)
      began = time.perf_counter()
      states[name], latents = step(params, states[name], ticks)
      latents.block_until_ready()
      times[name].append(time.perf_counter() - began)
  base = np.median(times['S3W9'][-ROUNDS:])
  for name, each in times.items():
    now = np.median(each[-ROUNDS:])
    print(
      f'{name:7s} {1e3 * now:9.2f} ms a chunk ({now / base:.2f} of S3W9), '
      f'memory {weights[name] / 2**20:.2f} MiB'
    )


if __name__ == '__main__':
  main()
