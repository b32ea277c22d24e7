"""TAEHV: reference data, streaming, distance from upstream's conventions."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import rules, torch_file
from jaxvid.errors import UserError
from jaxvid.models import tae

CONFIG = tae.TAEConfig(decoder_widths=(32, 16, 8, 8), encoder_width=8)
SMALL = tae.TAEConfig(decoder_widths=(4, 4, 2, 2), encoder_width=2, blocks=1)

# Compiled whole: operation by operation the tests would take minutes.
init = jax.jit(tae.init, static_argnums=0)
encode = jax.jit(tae.encode, static_argnums=0)
decode = jax.jit(tae.decode, static_argnums=0)


@functools.cache
def wan_params():
  tensors = torch_file.load(golden.path('taew2_1/taew2_1.pth'))
  return rules.convert(tensors)


def reference(name):
  """Stored `[N, T, C, H, W]` as ours, `[N, T, H, W, C]`."""
  stored = golden.load('taew2_1/inputs_outputs.npz')[name]
  return np.moveaxis(stored, 2, -1)


def to_unit(video):
  return (video + 1.0) / 2.0


def test_names_and_shapes_are_the_official_ones():
  shapes = jax.eval_shape(lambda key: tae.init(CONFIG, key), jax.random.key(0))
  ours = {k: v.shape for k, v in rules.flatten(shapes).items()}
  official = {k: v.shape for k, v in rules.flatten(wan_params()).items()}
  assert ours == official


@pytest.mark.parametrize('case', ['dec1', 'dec2', 'dec3'])
def test_decode_matches_reference(case):
  z, raw = reference(f'{case}.z'), reference(f'{case}.raw_all')
  ours = jax.jit(tae.decode_raw, static_argnums=0)(CONFIG, wan_params(), z)
  golden.assert_close(to_unit(ours), raw[:, 3:])
  video, _ = decode(CONFIG, wan_params(), z)
  golden.assert_close(to_unit(video), raw.clip(0, 1)[:, 3:])


@pytest.mark.parametrize('case', ['enc4', 'enc9'])
def test_encode_matches_reference(case):
  video = reference(f'{case}.rgb') * 2.0 - 1.0
  latent, _ = encode(CONFIG, wan_params(), video)
  golden.assert_close(latent, reference(f'{case}.z'))


def test_one_latent_at_a_time_matches_reference():
  z, state, parts = reference('dec3.z'), None, []
  for i in range(3):
    part, state = decode(CONFIG, wan_params(), z[:, i : i + 1], state)
    parts.append(part)
  sizes = golden.load('taew2_1/inputs_outputs.npz')['stream3.frames_per_latent']
  assert [part.shape[1] for part in parts] == list(sizes)
  golden.assert_close(
    to_unit(np.concatenate(parts, 1)), reference('stream3.rgb')
  )


def test_chunks_need_one_compilation():
  params = init(SMALL, jax.random.key(0))
  z = jax.random.normal(jax.random.key(1), (2, 6, 1, 2, 16))
  whole, _ = decode(SMALL, params, z)
  chunk = jax.jit(functools.partial(tae.decode_chunk, SMALL))
  state, parts = tae.init_state(SMALL, 2, 1, 2), []
  for i in range(3):
    first = jnp.array(i == 0)
    part, state = chunk(params, z[:, 2 * i : 2 * i + 2], state, first)
    parts.append(part)
  np.testing.assert_allclose(np.concatenate(parts, 1)[:, 3:], whole, atol=1e-5)
  assert chunk._cache_size() == 1


@pytest.mark.parametrize('splits', [(4, 4, 4), (8, 4)])
def test_encoding_in_parts_equals_one_shot(splits):
  params = init(SMALL, jax.random.key(0))
  video = jax.random.normal(jax.random.key(2), (2, 12, 8, 16, 3))
  whole, _ = encode(SMALL, params, video)
  state, parts, start = None, [], 0
  for size in splits:
    part, state = encode(SMALL, params, video[:, start : start + size], state)
    parts.append(part)
    start += size
  np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


def test_release_size():
  # The published checkpoint: 256/128/64/64 and 64.
  shapes = jax.eval_shape(
    lambda key: tae.init(tae.TAEW2_1, key), jax.random.key(0)
  )
  leaves = rules.flatten(shapes)
  decoder = sum(v.size for k, v in leaves.items() if k.startswith('decoder'))
  assert decoder == 9_844_611


def test_decoder_alone():
  config = tae.SHAPES_TAE
  params = jax.eval_shape(lambda key: tae.init(config, key), jax.random.key(0))
  assert all(name.startswith('decoder_') for name in params)
  with pytest.raises(UserError, match='no encoder'):
    tae.encode(config, params, jnp.zeros((1, 4, 8, 8, 3)))


def test_wrong_size_is_named():
  with pytest.raises(UserError, match='8x12'):
    tae.encode(SMALL, {}, jnp.zeros((1, 4, 8, 12, 3)))
