"""Times every attention backend at the shapes of a stream, on any device.

    python -m benchmarks.attention                        # full size on a GPU
    python -m benchmarks.attention --backends=mosaic --blocks=64,128,192
    python -m benchmarks.attention --tiny                 # on a CPU

Prints TFLOP/s (10^12 operations per second; 4 B N T S D per call) beside what
was predicted for an H200, the error against float32, and writes JSON. Needs
jax, flax, optax, chex, einops and numpy. A row that fails has its reason.
"""

import argparse
import datetime
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.ops.attention import Segment, api, reference
from jaxvid.ops.attention.ranges import Visible
from jaxvid.ops.attention.segments import join

# Name -> queries, keys of each segment; Wan2.1 1.3B at 832 x 480, 1560 tokens
# per latent frame: a chunk against windows, a frame, two chunks, the text,
# memory and chunk apart, the same with a bank of three frames.
SHAPES = {
  'window 9': (4680, (14040,)),
  'window 12': (4680, (18720,)),
  'window 21': (4680, (32760,)),
  'one frame': (1560, (18720,)),
  'two chunks': (9360, (18720,)),
  'text': (4680, (512,)),
  'apart': (4680, (14040, 4680)),
  'with bank': (4680, (14040, 4680, 4680)),
}
TINY = {'window': (96, (384,)), 'apart': (96, (288, 96))}
BACKENDS = ('cudnn', 'mosaic', 'mosaic_fp8')
# Derived, not measured: published rates of cuDNN, times what whole waves of
# tiles lose at these shapes; the kernel's goal where it should lose nothing.
PREDICTED = {
  ('cudnn', 'window 9'): 595,
  ('cudnn', 'window 12'): 600,
  ('cudnn', 'window 21'): 600,
  ('cudnn', 'two chunks'): 680,
  ('cudnn', 'text'): 450,
  ('mosaic', 'window 12'): 660,
  ('mosaic_fp8', 'window 12'): 830,
}


def main() -> None:
  """Times, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--backends', default='')
  parser.add_argument('--shapes', default='', help='names, by commas')
  parser.add_argument('--blocks', default='', help='key blocks of the kernel')
  parser.add_argument('--stages', default='2', help='blocks in flight')
  parser.add_argument('--seconds', type=float, default=0.5, help='per row')
  parser.add_argument('--tiny', action='store_true')
  parser.add_argument('--output', default='outputs/attention.json')
  flags = parser.parse_args()
  device = jax.devices()[0]
  on_gpu = device.platform == 'gpu'
  shapes = TINY if flags.tiny else SHAPES
  if flags.shapes:
    shapes = {name: shapes[name] for name in flags.shapes.split(',')}
  names = flags.backends or ','.join(BACKENDS if on_gpu else ('xla',))
  result = {
    'device': device.device_kind,
    'jax': jax.__version__,
    'date': datetime.date.today().isoformat(),
    'rows': [],
  }
  output = pathlib.Path(flags.output)
  output.parent.mkdir(parents=True, exist_ok=True)
  print(f'{device.device_kind}, jax {jax.__version__}')
  for shape in shapes:
    for label, function in _candidates(names.split(','), flags):
      row = measure(label, shape, *shapes[shape], function, flags)
      result['rows'].append(row)
      output.write_text(json.dumps(result, indent=1))
      print(_line(row), flush=True)


def _candidates(names, flags):
  """(label, function of q and segments) of all that is asked for."""
  for name in names:
    kernel = name.startswith('mosaic')
    if not (kernel and flags.blocks):
      yield name, api.function(name)
      continue
    from jaxvid.ops.attention.mosaic import attention as mosaic
    from jaxvid.ops.attention.mosaic.consumer import Options

    quantized = name.endswith('fp8')
    for block in map(int, flags.blocks.split(',')):
      for stages in map(int, flags.stages.split(',')):
        options = Options(block, stages, jax.devices()[0].core_count)
        run = functools.partial(
          mosaic.attention, quantized=quantized, options=options
        )
        yield f'{name} {block}x{stages}', run


def measure(label, shape, queries, sizes, function, flags) -> dict:
  """One row: a backend at a shape."""
  heads, dim = (2, 32) if flags.tiny else (12, 128)
  dtype = jnp.bfloat16 if jax.default_backend() == 'gpu' else jnp.float32
  keys = iter(jax.random.split(jax.random.key(0), 1 + 2 * len(sizes)))

  def draw(size):
    return jax.random.normal(next(keys), (1, size, heads, dim), dtype)

  q = draw(queries)
  segments = [Segment(draw(size), draw(size)) for size in sizes]
  row = {'backend': label, 'shape': shape, 'queries': queries, 'keys': sizes}
  try:
    run = jax.jit(lambda q, segments: function(q, segments, None))
    out = run(q, segments)
    row['error'] = _error(out, q, segments)
    row['ms'] = 1e3 * _seconds(run, (q, segments), flags.seconds)
  except Exception as error:  # A backend may not exist here.
    row['failed'] = f'{type(error).__name__}: {str(error)[:200]}'
    return row
  work = 4 * heads * queries * sum(sizes) * dim
  row['tflops'] = work / row['ms'] / 1e9
  kind = jax.devices()[0].device_kind
  predicted = PREDICTED.get((label.split()[0], shape))
  if predicted and any(name in kind for name in ('H100', 'H200')):
    row['predicted'] = predicted
  return row


def _error(out, q, segments) -> float:
  """Of some queries, relative to the largest output."""
  rows = np.linspace(0, q.shape[1] - 1, 128).astype(int)
  one = join(segments)
  parts = (x.astype(jnp.float32) for x in (q[:, rows], one.k, one.v))
  with jax.default_matmul_precision('highest'):
    right = reference.attention(*parts, Visible(None, None))
  wrong = jnp.abs(out[:, rows].astype(jnp.float32) - right)
  return float(jnp.max(wrong) / jnp.max(jnp.abs(right)))


def _seconds(run, arguments, seconds) -> float:
  """Per call, after warming up."""
  jax.block_until_ready(run(*arguments))
  began = time.perf_counter()
  jax.block_until_ready(run(*arguments))
  once = time.perf_counter() - began
  count = max(1, min(1000, int(seconds / once)))
  began = time.perf_counter()
  for _ in range(count):
    out = run(*arguments)
  jax.block_until_ready(out)
  return (time.perf_counter() - began) / count


def _line(row) -> str:
  start = f'{row["backend"]:18} {row["shape"]:12}'
  if 'failed' in row:
    return f'{start} failed: {row["failed"]}'
  line = (
    f'{start} {row["ms"]:9.3f} ms {row["tflops"]:8.3f} TFLOP/s'
    f'   error {row["error"]:.1e}'
  )
  if 'predicted' in row:
    line += f'   predicted {row["predicted"]} TFLOP/s'
  return line


if __name__ == '__main__':
  main()
