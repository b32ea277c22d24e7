"""Streaming decoders of 480 x 832, compiled for an H200 without one."""

import dataclasses
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import specs
from jaxvid.models import tae, vae
from jaxvid.stream.frames import to_uint8

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('jax_cuda13_plugin') is None,
  reason='needs the environment of make test-h200',
)
KINDS = {'tae': (tae, tae.TAEW2_1), 'vae': (vae, vae.WAN_VAE)}


def _compiled(kind):
  """A steady chunk: 3 latents to 12 frames of bytes, the state donated."""
  from benchmarks import h200

  module, config = KINDS[kind]
  config = dataclasses.replace(config, dtype='bfloat16')
  if kind == 'vae':
    config = dataclasses.replace(config, conv='native')
  zeros = jax.tree.map(
    lambda x: np.broadcast_to(np.float32(0), x.shape),
    specs.abstract(kind, config),
  )
  config, tree = module.fast(config, zeros, True)
  params = jax.tree.map_with_path(
    lambda path, x: h200.spec(
      x.shape, jnp.bfloat16 if path[-1].key == 'kernel' else jnp.float32
    ),
    tree,
  )
  state = jax.eval_shape(lambda: module.init_state(config, 1, 60, 104))

  def decode(params, z, state):
    video, state = module.decode_chunk(config, params, z, state, False)
    return to_uint8(video), state

  return h200.compile(
    decode,
    params,
    h200.spec((1, 3, 60, 104, 16), jnp.float32),
    h200.specs(state),
    options={'xla_gpu_force_conv_nhwc': True},
    donate_argnums=2,
  )


@pytest.mark.parametrize(
  'kind, convolutions, kernels, temp_mb',
  [('tae', 32, 90, 1300), ('vae', 39, 200, 4000)],
)
def test_decoder_at_full_size(kind, convolutions, kernels, temp_mb):
  from benchmarks import h200

  executable = _compiled(kind)
  report = h200.report(executable)
  calls = report['custom_calls']
  assert report['big_copies'] == []
  assert sum(calls.values()) == convolutions
  assert all(name.startswith('__cudnn$conv') for name in calls)
  assert report['entry_kernels'] <= kernels
  assert report['temp_mb'] <= temp_mb
  # Only frames, and pixels that come of one, change places; no weights do.
  text = executable.as_text()
  assert len(re.findall(r' transpose\(', text)) <= 2
  assert not re.search(r'wrapped_transpose', text)
