"""The Wan VAE: reference data, streaming, forms of its convolutions, size."""

import dataclasses
import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import rules, torch_file
from jaxvid.errors import UserError
from jaxvid.models import vae, vae_layers

CONFIG = dataclasses.replace(vae.WAN_VAE, dim=6)
SMALL = vae.VAEConfig(dim=4, z_dim=4, dim_mult=(1, 1, 2, 2), num_res_blocks=1)
SMALL = dataclasses.replace(
  SMALL, latent_mean=(0.5,) * 4, latent_std=(2.0,) * 4
)
# Convolutions of other lengths add up in another order.
TOLERANCE = 1e-4

# Compiled whole: operation by operation the tests would take minutes.
encode = jax.jit(vae.encode, static_argnums=0)
decode = jax.jit(vae.decode, static_argnums=0)
moments = jax.jit(vae.moments, static_argnums=0)


@functools.cache
def wan_params():
  tensors = torch_file.load(golden.path('wan_vae/Wan2.1_VAE.pth'))
  return rules.convert(tensors)


@functools.cache
def small_params():
  """Random parameters, none of them zero."""
  params = jax.jit(vae.init, static_argnums=0)(SMALL, jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return tree.unflatten(
    leaf + 0.1 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  )


def reference(name):
  """Stored `[C, T, H, W]` as ours, `[1, T, H, W, C]`."""
  stored = golden.load('wan_vae/inputs_outputs.npz')[name]
  return np.moveaxis(stored, 0, -1)[None]


def test_names_and_shapes_are_the_official_ones():
  shapes = jax.eval_shape(lambda key: vae.init(CONFIG, key), jax.random.key(0))
  ours = {k: v.shape for k, v in rules.flatten(shapes).items()}
  official = {k: v.shape for k, v in rules.flatten(wan_params()).items()}
  assert ours == official


@pytest.mark.parametrize('case', ['enc1', 'enc9'])
def test_encode_matches_reference(case):
  latent, _ = encode(CONFIG, wan_params(), reference(f'{case}.pixels'))
  golden.assert_close(latent, reference(f'{case}.latent'))
  mean, _, _ = moments(CONFIG, wan_params(), reference(f'{case}.pixels'))
  golden.assert_close(mean, reference(f'{case}.mu_raw'))


@pytest.mark.parametrize('case', ['dec1', 'dec4'])
def test_decode_matches_reference(case):
  video, _ = decode(CONFIG, wan_params(), reference(f'{case}.z'))
  golden.assert_close(video, reference(f'{case}.pixels_raw'))


def test_decode_chunks_match_reference():
  z = reference('dec4.z')
  first, state = decode(CONFIG, wan_params(), z[:, :3])
  second, _ = decode(CONFIG, wan_params(), z[:, 3:], state)
  golden.assert_close(first, reference('stream4.chunk0.pixels_raw'))
  golden.assert_close(second, reference('stream4.chunk1.pixels_raw'))


@pytest.mark.parametrize('splits', [(1, 4, 4, 4, 4), (5, 12), (9, 4, 4)])
def test_encoding_in_parts_equals_one_shot(splits):
  video = jax.random.normal(jax.random.key(2), (2, 17, 8, 16, 3))
  whole, end = encode(SMALL, small_params(), video)
  state, parts, start = None, [], 0
  for size in splits:
    part, state = encode(
      SMALL, small_params(), video[:, start : start + size], state
    )
    parts.append(part)
    start += size
  np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=TOLERANCE)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(end), strict=True):
    np.testing.assert_allclose(a, b, atol=TOLERANCE)


@pytest.mark.parametrize('splits', [(1, 1, 1, 1, 1), (2, 3), (4, 1)])
def test_decoding_in_parts_equals_one_shot(splits):
  z = jax.random.normal(jax.random.key(3), (2, 5, 1, 2, 4))
  whole, _ = decode(SMALL, small_params(), z)
  assert whole.shape == (2, 17, 8, 16, 3)
  state, parts, start = None, [], 0
  for size in splits:
    part, state = decode(
      SMALL, small_params(), z[:, start : start + size], state
    )
    parts.append(part)
    start += size
  np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=TOLERANCE)


def test_chunks_need_one_compilation():
  z = jax.random.normal(jax.random.key(4), (1, 6, 1, 2, 4))
  whole, _ = decode(SMALL, small_params(), z)
  chunk = jax.jit(functools.partial(vae.decode_chunk, SMALL))
  state, parts = vae.init_state(SMALL, 1, 1, 2), []
  for i in range(3):
    first = jnp.array(i == 0)
    part, state = chunk(small_params(), z[:, 2 * i : 2 * i + 2], state, first)
    assert part.shape[1] == 8
    parts.append(part)
  np.testing.assert_allclose(
    np.concatenate(parts, 1)[:, 3:], whole, atol=TOLERANCE
  )
  assert chunk._cache_size() == 1


@pytest.mark.parametrize('form', ['channels', 'native'])
@pytest.mark.parametrize('stride', [1, 2])
def test_forms_of_the_convolution_agree(form, stride):
  x = jax.random.normal(jax.random.key(5), (2, 5, 4, 6, 3))
  kernel = jax.random.normal(jax.random.key(6), (3, 3, 3, 3, 4))

  def loss(form, x, kernel):
    y = vae_layers.temporal_conv(x, kernel, stride, form)
    return jnp.sum(jnp.sin(y)), y

  run = jax.jit(
    jax.value_and_grad(loss, (1, 2), has_aux=True), static_argnums=0
  )
  (_, ours), gradients = run(form, x, kernel)
  (_, expected), expected_gradients = run('frames', x, kernel)
  np.testing.assert_allclose(ours, expected, atol=2e-5)
  for a, b in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-4)


def test_release_size():
  shapes = jax.eval_shape(
    lambda key: vae.init(vae.WAN_VAE, key), jax.random.key(0)
  )
  leaves = jax.tree.leaves(shapes)
  assert len(leaves) == 194
  assert sum(leaf.size for leaf in leaves) == 126_892_531


def test_latents_are_normalised():
  video = jax.random.normal(jax.random.key(7), (1, 5, 8, 8, 3))
  latent, _ = encode(SMALL, small_params(), video)
  mean, log_variance, _ = moments(SMALL, small_params(), video)
  assert mean.shape == log_variance.shape == (1, 2, 1, 1, 4)
  np.testing.assert_allclose(latent, (mean - 0.5) / 2.0, atol=1e-6)
  np.testing.assert_allclose(vae.denormalize(SMALL, latent), mean, atol=1e-5)


def test_norm_has_a_gradient_at_zero():
  def loss(x):
    return jnp.sum(vae_layers.rms_norm(x, jnp.ones(3)))

  assert bool(jnp.isfinite(jax.grad(loss)(jnp.zeros((2, 3)))).all())


@pytest.mark.parametrize(
  'shape, state, text',
  [
    ((1, 4, 8, 8, 3), None, 'not 4'),
    ((1, 5, 8, 12, 3), None, '8x12'),
    ((1, 5, 8, 8, 3), (), 'not 5'),
  ],
)
def test_wrong_sizes_are_named(shape, state, text):
  with pytest.raises(UserError, match=text):
    vae.encode(SMALL, {}, jnp.zeros(shape), state)
