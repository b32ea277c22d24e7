"""Measures the memory of checkpoints; run by test_convert_task.

Prints one line per job: its name and the growth of the process at the
worst moment, in units of the checkpoint's size.
"""

import os
import pathlib
import sys

import numpy as np
import torch_writer

from jaxvid.convert import checkpoint, specs
from jaxvid.models import dit
from jaxvid.storage import weights
from jaxvid.tasks import convert
from jaxvid.training import checkpoint as ours_lib

CONFIG = dit.DiTConfig(
  dim=1024, ffn_dim=4096, num_heads=8, num_layers=3, text_dim=256
)


def status(name: str) -> int:
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(name))


def measure(name, size, function) -> None:
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # Resets the peak.
  before = status('VmRSS')
  function()
  print(name, round((status('VmHWM') - before) / size, 3), flush=True)


def main(folder: pathlib.Path) -> None:
  source = folder / 'x.pt'
  shapes = specs.expected('dit', CONFIG)
  rng = np.random.default_rng(0)
  tensors = {k: rng.random(s, np.float32) for k, s in shapes.items()}
  torch_writer.save(source, {'generator_ema': tensors})
  del tensors
  size = os.path.getsize(source)
  weights.save(folder / 'warm', {'a': np.zeros(3)}, {})
  weights.load(folder / 'warm')

  def task(source, target, **options):
    config = convert.Config(str(source), str(target), **options)
    return lambda: convert.run(config)

  file, ours = folder / 'x.safetensors', folder / 'ours'
  measure('safetensors', size, task(source, file))
  measure('half', size, task(source, file, dtype='bfloat16'))
  measure('orbax', size, task(source, ours))
  measure('back', size, task(ours, file))

  def load():
    _, params = checkpoint.load_checkpoint(source)
    return checkpoint.transfer(params, np.array)

  measure('arrays', size, load)
  measure('read', size, lambda: ours_lib.load_params(ours))
  _, params = ours_lib.load_params(ours)
  measure('write', size, lambda: weights.save(ours, params, {}))
  measure('cast', size, lambda: weights.save(ours, params, {}, 'bfloat16'))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
