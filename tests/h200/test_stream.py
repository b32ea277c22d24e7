"""A whole chunk of Wan2.1 1.3B, compiled for an H200 without one."""

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
from jaxvid.models import conditioning
from jaxvid.models.dit import WAN_1_3B
from jaxvid.models.fused import fuse
from jaxvid.stream import stream

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('jax_cuda13_plugin') is None,
  reason='needs the environment of make test-h200',
)
LATENT = (1, 3, 60, 104, 16)


def _compiled(schedule, layers, deferred=False):
  """The jitted chunk function with bf16 weights and a donated state."""
  settings = stream.Settings(
    dataclasses.replace(WAN_1_3B, num_layers=layers),
    MemoryConfig(30, 52, 3, 9, 3),
    schedule,
    dtype='bfloat16',
    fused=True,
    backend='cudnn',
    deferred=deferred,
  )
  return _compile(settings)


def _compile(settings):
  from benchmarks import h200

  config, deferred = settings.config, settings.deferred
  params = jax.eval_shape(
    lambda p: fuse(config, p, jnp.bfloat16), specs.abstract('dit', config)
  )
  text = jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32)
  state = jax.eval_shape(
    lambda p, x: stream.init(settings, p, x, jax.random.key(0)), params, text
  )
  if deferred:
    pending = jax.ShapeDtypeStruct(LATENT, jnp.bfloat16)
    state = state.replace(pending=pending)
  ticks = jax.tree.map(jnp.asarray, stream.chunk_ticks(settings.schedule, 0))
  return h200.compile(
    functools.partial(stream.step, settings),
    *map(h200.specs, (params, state, ticks)),
    options=stream.compiler_options('gpu'),
    donate_argnums=1,
  )


def _kernels_in_loop(executable) -> int:
  """Kernels of one pass through the loop over ticks: one forward."""
  bodies = re.findall(
    r'\n%?[\w.\-]+ \([^\n]*\{\n(.*?)\n\}', executable.as_text(), re.S
  )
  return max(len(re.findall(r' (?:fusion|custom-call)\(', b)) for b in bodies)


def test_diagdistill_at_full_size():
  from benchmarks import h200

  executable = _compiled(schedules.digits('2'), 30)
  report = h200.report(executable)
  assert report['big_copies'] == []
  assert report['temp_mb'] <= 200
  assert report['custom_calls']['__cudnn$fmhaSoftmax'] == 60
  assert _kernels_in_loop(executable) <= 560
  # Keys and values of 30 layers are updated where they are.
  assert report['alias_mb'] >= 2 * 30 * 12 * 1560 * 1536 * 2 / 1e6


@pytest.mark.parametrize('deferred', [False, True])
def test_a_clean_pass_copies_nothing_either(deferred):
  from benchmarks import h200

  executable = _compiled(schedules.self_forcing(), 2, deferred)
  report = h200.report(executable)
  assert report['big_copies'] == []
  # Own and cross, two layers: in the loop; in the pass, of which the compiler
  # drops what follows the last keys and values; or of two chunks in one pass.
  calls = 4 + (6 if deferred else 2)
  assert report['custom_calls']['__cudnn$fmhaSoftmax'] == calls


def test_one_evaluation_per_latent_frame_copies_nothing():
  from benchmarks import h200

  settings = stream.Settings(
    dataclasses.replace(WAN_1_3B, in_dim=32, rope_grid=(30, 52)),
    MemoryConfig(30, 52, sink=1, window=30, chunk=1),
    schedules.digits('1'),
    dtype='bfloat16',
    fused=True,
    backend='cudnn',
    inputs=conditioning.RECYCLED,
  )
  executable = _compile(settings)
  report = h200.report(executable)
  assert report['big_copies'] == []
  assert report['temp_mb'] <= 200
  assert report['custom_calls']['__cudnn$fmhaSoftmax'] == 60
  # Keys and values of 31 frames in 30 layers are updated where they are.
  assert report['alias_mb'] >= 2 * 30 * 31 * 1560 * 1536 * 2 / 1e6
