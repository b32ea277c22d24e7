"""What the attention kernel consists of when compiled for an H200, no GPU.

    .venv-h200/bin/python -m benchmarks.attention_h200

Compiles `ring_attention` at 4680 x 18720, 12 heads of 128, for several block
sizes and depths, and prints registers, spills, shared memory and matrix
instructions. Nothing is timed. docs/kernels.md holds the table.
"""

from benchmarks import h200  # Before jax is imported.

# isort: split
import jax.numpy as jnp

from jaxvid.ops.attention import Segment
from jaxvid.ops.attention.fp8 import E4M3
from jaxvid.ops.attention.mosaic import attention as mosaic
from jaxvid.ops.attention.mosaic.consumer import Options

# (type of the keys, keys per block, blocks in flight)
VARIANTS = (
  (jnp.bfloat16, 64, 2),
  (jnp.bfloat16, 128, 2),
  (jnp.bfloat16, 192, 2),
  (E4M3, 128, 2),
  (E4M3, 128, 3),
  (E4M3, 192, 2),
)


def main() -> None:
  """Compiles and prints a line per variant."""
  print('| keys | block x depth | registers | spills | shared | wgmma |')
  print('|---|---|---|---|---|---|')
  for dtype, block, stages in VARIANTS:
    options = Options(block=block, stages=stages)

    def attend(q, k, v, options=options):
      return mosaic.attention(q, [Segment(k, v)], options=options)

    def array(size, dtype):
      return h200.spec((1, size, 12, 128), dtype)

    name = f'| {jnp.dtype(dtype).name} | {block} x {stages}'
    try:
      with h200.watch_kernels() as kernels:
        h200.compile(
          attend,
          array(4680, jnp.bfloat16),
          array(18720, dtype),
          array(18720, jnp.bfloat16),
        )
    except Exception as error:
      print(f'{name} | {type(error).__name__}: {str(error)[:80]} |', flush=True)
      continue
    ring = kernels['ring_attention']
    wgmma = ', '.join(f'{n} x {what}' for what, n in ring.wgmma.items())
    print(
      f'{name} | {ring.registers} | {ring.spills} | {ring.shared} | {wgmma} |',
      flush=True,
    )


if __name__ == '__main__':
  main()
