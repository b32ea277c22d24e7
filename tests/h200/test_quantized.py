"""Linear layers of 8-bit floats, compiled for an H200 without one."""

import dataclasses
import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest

from jaxvid.convert import specs
from jaxvid.diffusion import schedule as schedules
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import WAN_1_3B
from jaxvid.models.dit_block import gelu
from jaxvid.models.fused import fuse
from jaxvid.models.layers import Dense, feed_forward
from jaxvid.ops.quantized import FP8, QuantizedKernel
from jaxvid.quantization import tree
from jaxvid.stream import stream

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('jax_cuda13_plugin') is None,
  reason='needs the environment of make test-h200',
)


def _fp8_block():
  """The linear layers of a block's feed-forward part, 4680 tokens."""
  from benchmarks import h200

  def kernel(k, n):
    return {
      'kernel': QuantizedKernel(
        h200.spec((n, k), FP8),
        h200.spec((), jnp.float32),
        h200.spec((), jnp.float32),
        mode='fp8',
      ),
      'bias': h200.spec((n,), jnp.bfloat16),
    }

  def run(params, x):
    dense = functools.partial(Dense, dtype=jnp.bfloat16)
    first, second = (
      dense(size).bind({'params': part})
      for size, part in zip((8960, 1536), params, strict=True)
    )
    return feed_forward(x, first, second, gelu) + x

  return h200.compile(
    run,
    (kernel(1536, 8960), kernel(8960, 1536)),
    h200.spec((1, 3, 1560, 1536), jnp.bfloat16),
    options={'xla_gpu_enable_triton_gemm': False},
  )


def test_linear_layers_of_8_bit_floats_are_one_call_each():
  from benchmarks import h200

  executable = _fp8_block()
  report = h200.report(executable)
  text = executable.as_text()
  assert report['custom_calls'].get('__cublas$lt$matmul$f8') == 2
  assert 'GELU' in text
  # The first product rounds its own result for the second.
  assert re.search(r'f8e4m3fn\[4688,8960\][^\n]*custom-call', text)
  assert report['big_copies'] == []
  assert report['entry_kernels'] <= 5


def _chunk(layers, backend='cudnn', key_dtype=''):
  """A chunk of S3W9 whose blocks are in 8-bit floats, in the fused layout."""
  from benchmarks import h200

  config = dataclasses.replace(WAN_1_3B, num_layers=layers)
  schedule = schedules.digits('2')
  settings = stream.Settings(
    config,
    MemoryConfig(30, 52, 3, 9, 3, key_dtype=key_dtype),
    schedule,
    dtype='bfloat16',
    fused=True,
    backend=backend,
  )

  params = tree.abstract(specs.abstract('dit', config), 'fp8')
  params = jax.eval_shape(lambda p: fuse(config, p, jnp.bfloat16), params)
  text = jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32)
  state = jax.eval_shape(
    lambda p, x: stream.init(settings, p, x, jax.random.key(0)), params, text
  )
  ticks = jax.tree.map(jnp.asarray, stream.chunk_ticks(schedule, 0))
  return h200.compile(
    functools.partial(stream.step, settings),
    *map(h200.specs, (params, state, ticks)),
    options=stream.compiler_options('gpu'),
    donate_argnums=1,
  )


def test_every_layer_of_a_chunk_is_one_product_of_8_bit_floats():
  from benchmarks import h200

  executable = _chunk(2)
  report = h200.report(executable)
  calls = report['custom_calls']
  # qkv, o, cross q, cross o, two of the feed-forward part.
  assert calls['__cublas$lt$matmul$f8'] == 2 * 6
  assert report['big_copies'] == []
  # The feed-forward part passes 8 bits from one product to the next.
  wide = re.findall(
    r'= \(?f8e4m3fn\[4688,8960\][^\n]*custom-call', executable.as_text()
  )
  assert len(wide) == 2


def test_keys_in_8_bits_are_read_where_they_lie():
  from benchmarks import h200

  executable = _chunk(2, 'mosaic_fp8', 'e4m3')
  report = h200.report(executable)
  assert report['big_copies'] == []
  assert report['custom_calls']['__cublas$lt$matmul$f8'] == 2 * 6
