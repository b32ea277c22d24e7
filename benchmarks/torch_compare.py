"""Times a forward pass here and in PyTorch (diffusers), at the same size.

    python -m benchmarks.torch_compare --torch-python=/path/to/python

PyTorch and diffusers live in an environment of their own (Python 3.11,
`pip install torch diffusers`); this library neither has nor imports them. Both
processes run one after the other, `--rounds` times in turns, on the same
cores: Wan2.1's transformer of width 512 with 8 layers on 24 x 16 patches per
latent frame, float32, text encoded in the pass.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

SIZE = {
  'dim': 512,
  'ffn_dim': 2048,
  'heads': 8,
  'layers': 8,
  'text_dim': 512,
  'text_len': 64,
  'rows': 24,
  'columns': 16,
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--torch-python', default='python3.11')
  parser.add_argument('--frames', type=int, default=1)
  parser.add_argument('--threads', type=int, default=os.cpu_count() or 1)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--output', default='')
  parser.add_argument('--run', choices=('jax', 'torch'), help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.run:
    measure = {'jax': run_jax, 'torch': run_torch}[flags.run]
    print(json.dumps(measure(flags.frames, flags.threads, flags.repeats)))
    return
  found = {'jax': [], 'torch': []}
  for _ in range(flags.rounds):
    for name, python in (
      ('jax', sys.executable),
      ('torch', flags.torch_python),
    ):
      found[name].append(_process(name, python, flags))
  report = summary(found, flags)
  print(json.dumps(report, indent=1))
  if flags.output:
    text = json.dumps(report, indent=1) + '\n'
    pathlib.Path(flags.output).write_text(text)


def summary(found: dict, flags) -> dict:
  """Medians over rounds of each side's median pass, and the best of all."""
  times = {
    name: statistics.median(run['forward_s'] for run in runs)
    for name, runs in found.items()
  }
  best = {
    name: min(run['best_s'] for run in runs) for name, runs in found.items()
  }
  used = {
    name: statistics.median(run['cpu_s'] for run in runs)
    for name, runs in found.items()
  }
  return {
    'size': SIZE,
    'frames': flags.frames,
    'threads': flags.threads,
    'date': time.strftime('%Y-%m-%d'),
    'jax_s': times['jax'],
    'torch_s': times['torch'],
    'jax_by_torch': times['jax'] / times['torch'],
    'best_jax_by_torch': best['jax'] / best['torch'],
    'cpu_jax_by_torch': used['jax'] / used['torch'],
    'compile_s': statistics.median(run['compile_s'] for run in found['jax']),
    'runs': found,
  }


def _process(name: str, python: str, flags) -> dict:
  command = [python, os.path.abspath(__file__), f'--run={name}']
  command += [f'--frames={flags.frames}', f'--threads={flags.threads}']
  command += [f'--repeats={flags.repeats}']
  root = pathlib.Path(__file__).parent.parent
  environment = dict(os.environ, PYTHONPATH=str(root), JAX_PLATFORMS='cpu')
  for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
    environment[variable] = str(flags.threads)
  done = subprocess.run(
    command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True
  )
  if done.returncode:
    raise SystemExit(f'{name} failed: {" ".join(command)}')
  return json.loads(done.stdout.splitlines()[-1])


def _timed(forward, repeats: int) -> dict[str, float]:
  """Seconds of a pass after two to warm up: median, best, and of processor.

  On a machine that does other work too, processor time with one thread says
  most: threads that wait for each other suffer from others' load.
  """
  times, used = [], []
  for _ in range(repeats + 2):
    began, before = time.perf_counter(), time.process_time()
    forward()
    times.append(time.perf_counter() - began)
    used.append(time.process_time() - before)
  return {
    'forward_s': statistics.median(times[2:]),
    'best_s': min(times[2:]),
    'cpu_s': statistics.median(used[2:]),
  }


def run_jax(frames: int, threads: int, repeats: int) -> dict:
  """This library; XLA uses the cores that the process may use."""
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
  import jax
  import jax.numpy as jnp

  from jaxvid.convert import specs
  from jaxvid.models.dit import DiT, DiTConfig
  from jaxvid.models.fused import fuse
  from jaxvid.tasks.speed_rig import random_tree

  config = DiTConfig(
    dim=SIZE['dim'],
    ffn_dim=SIZE['ffn_dim'],
    num_heads=SIZE['heads'],
    num_layers=SIZE['layers'],
    text_dim=SIZE['text_dim'],
    text_len=SIZE['text_len'],
  )
  params = fuse(config, random_tree(specs.abstract('dit', config)))
  dit = DiT(config, scan=False, fused=True)
  shape = (1, frames, 2 * SIZE['rows'], 2 * SIZE['columns'], 16)
  x = jax.random.normal(jax.random.key(0), shape)
  text = jax.random.normal(
    jax.random.key(1), (1, SIZE['text_len'], SIZE['text_dim'])
  )
  t = jnp.full((1,), 500.0)

  @jax.jit
  def forward(params, x, t, text):
    return dit.apply({'params': params}, x, t, text)[0]

  began = time.perf_counter()
  program = forward.lower(params, x, t, text).compile()
  compiled = time.perf_counter() - began
  found = _timed(
    lambda: program(params, x, t, text).block_until_ready(), repeats
  )
  return {
    **found,
    'compile_s': compiled,
    'jax': jax.__version__,
    'parameters': sum(p.size for p in jax.tree.leaves(params)),
  }


def run_torch(frames: int, threads: int, repeats: int) -> dict:
  """diffusers' WanTransformer3DModel."""
  import diffusers
  import torch

  torch.set_num_threads(threads)
  model = diffusers.WanTransformer3DModel(
    patch_size=(1, 2, 2),
    num_attention_heads=SIZE['heads'],
    attention_head_dim=SIZE['dim'] // SIZE['heads'],
    in_channels=16,
    out_channels=16,
    text_dim=SIZE['text_dim'],
    freq_dim=256,
    ffn_dim=SIZE['ffn_dim'],
    num_layers=SIZE['layers'],
    cross_attn_norm=True,
    qk_norm='rms_norm_across_heads',
  ).eval()
  x = torch.randn(1, 16, frames, 2 * SIZE['rows'], 2 * SIZE['columns'])
  text = torch.randn(1, SIZE['text_len'], SIZE['text_dim'])
  t = torch.full((1,), 500)
  with torch.inference_mode():
    found = _timed(lambda: model(x, t, text, return_dict=False), repeats)
  return {
    **found,
    'torch': torch.__version__,
    'diffusers': diffusers.__version__,
    'parameters': sum(p.numel() for p in model.parameters()),
  }


if __name__ == '__main__':
  main()
