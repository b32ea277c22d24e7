"""Times single kernels at the shapes of a stream, beside their predictions."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.ops.attention import attention
from jaxvid.tasks.speed_rig import SIZES, on_gpu

# Expected on an H200 in 10^12 operations per second (copy: bytes).
PREDICTED = {
  'matmul 8192': 790,
  'copy': 4.3,
  'qkv': 700,
  'o': 600,
  'ffn_0': 720,
  'ffn_2': 600,
  'fp8 qkv': 1000,
  'fp8 ffn_0': 1200,
  'attention cudnn': 600,
  'attention mosaic': 600,
  'attention mosaic_fp8': 830,
  'text attention cudnn': 450,
}


class Kernel(NamedTuple):
  """Something to time.

  Attributes:
    name: what it is; before a comma the name of its prediction.
    run: function of `arguments`.
    arguments: arrays.
    amount: operations, or bytes of a copy.
  """

  name: str
  run: Callable[..., jax.Array]
  arguments: tuple[jax.Array, ...]
  amount: float


def measure(size: str = '1.3b', seconds: float = 0.3) -> Iterator[dict]:
  """Times every kernel that works here.

  Args:
    size: of the transformer whose shapes are taken; full pictures, or tiny
      ones for 'tiny' and 'small'.
    seconds: of timing for each.

  Yields:
    Rows for a report; a kernel that fails has an `error`.
  """
  for make in _kernels(size):
    kernel = make()
    row: dict[str, Any] = {'name': kernel.name}
    try:
      taken = timed(kernel.run, kernel.arguments, seconds)
      row |= {'ms': 1e3 * taken, 'tera_per_s': kernel.amount / taken / 1e12}
      expected = PREDICTED.get(kernel.name.split(',')[0])
      if expected and on_gpu() and size == '1.3b':
        row['predicted'] = expected
        row['measured_to_predicted'] = row['tera_per_s'] / expected
    except Exception as error:  # A kernel may not exist on this card.
      row['error'] = f'{type(error).__name__}: {str(error)[:200]}'
    yield row


def timed(run, arguments, seconds: float) -> float:
  """Seconds per call of a jitted function, after two calls to warm up."""
  run = jax.jit(run)
  for _ in range(2):
    jax.block_until_ready(run(*arguments))
  began = time.perf_counter()
  jax.block_until_ready(run(*arguments))
  count = max(1, min(1000, int(seconds / (time.perf_counter() - began + 1e-9))))
  began = time.perf_counter()
  for _ in range(count):
    out = run(*arguments)
  jax.block_until_ready(out)
  return (time.perf_counter() - began) / count


def _kernels(size: str) -> Iterator[Callable[[], Kernel]]:
  """Makers, so that the arrays of one kernel at a time are on the device."""
  full = size not in ('tiny', 'small')
  tokens = 4680 if full else 96
  side = 8192 if full else 256
  yield lambda: _matmul(f'matmul {side}', side, side, side)
  yield lambda: _copy(2**30 if full else 2**20)
  config = SIZES[size]
  linears = {
    'qkv': (config.dim, 3 * config.dim),
    'o': (config.dim, config.dim),
    'ffn_0': (config.dim, config.ffn_dim),
    'ffn_2': (config.ffn_dim, config.dim),
  }
  for name, (width, out) in linears.items():
    yield lambda n=name, w=width, o=out: _matmul(n, tokens, w, o)
  for name in ('qkv', 'ffn_0'):
    width, out = linears[name]
    rows = -(-tokens // 16) * 16
    yield lambda n=name, w=width, o=out, r=rows: _fp8(f'fp8 {n}', r, w, o)
  backends = ('cudnn', 'mosaic', 'mosaic_fp8') if on_gpu() else ('xla',)
  for keys in (3 * tokens, 4 * tokens, 7 * tokens):
    for backend in backends:
      yield lambda k=keys, b=backend: _attention(
        f'attention {b}, {tokens} x {k}', config, tokens, k, b
      )
  yield lambda: _attention(
    f'text attention {backends[0]}, {tokens} x {config.text_len}',
    config,
    tokens,
    config.text_len,
    backends[0],
  )


def _type():
  return jnp.bfloat16 if on_gpu() else jnp.float32


def _draw(seed: int, *shape: int) -> jax.Array:
  return jax.random.normal(jax.random.key(seed), shape, _type())


def _matmul(name: str, rows: int, width: int, out: int) -> Kernel:
  x, w = _draw(0, rows, width), _draw(1, width, out)
  return Kernel(name, jnp.matmul, (x, w), 2.0 * rows * width * out)


def _copy(size: int) -> Kernel:
  x = jnp.ones((size // 4,), jnp.float32)
  return Kernel('copy', lambda x: x * 1.0001, (x,), 2.0 * size)


def _fp8(name: str, rows: int, width: int, out: int) -> Kernel:
  """Static scales, weights [out, width]: one cuBLASLt call on Hopper."""
  eight = jnp.float8_e4m3fn
  x, w = (_draw(i, n, width).astype(eight) for i, n in ((0, rows), (1, out)))

  def run(x, w):
    x, w = (a.astype(_type()) * jnp.asarray(0.1, _type()) for a in (x, w))
    return jax.lax.dot_general(
      x, w, (((1,), (1,)), ((), ())), preferred_element_type=_type()
    )

  return Kernel(name, run, (x, w), 2.0 * rows * width * out)


def _attention(name, config, queries: int, keys: int, backend: str) -> Kernel:
  shape = config.num_heads, config.head_dim
  q = _draw(0, 1, queries, *shape)
  k, v = (_draw(i, 1, keys, *shape) for i in (1, 2))

  def run(q, k, v):
    return attention(q, k, v, backend=backend)

  return Kernel(name, run, (q, k, v), 4.0 * queries * keys * config.dim)
