"""Decoders arranged for speed: equal to the plain ones, in every layout."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models import conv, tae, vae

TAE = tae.TAEConfig(decoder_widths=(6, 5, 4, 3), encoder_width=2, blocks=1)
VAE = vae.VAEConfig(
  dim=3, dim_mult=(1, 2), num_res_blocks=0, temporal_downsample=(True,)
)


def _random(init, config):
  """Random parameters, biases included, made without compiling."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))

  def draw(leaf):
    std = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1
    return np.float32(std) * rng.standard_normal(leaf.shape, np.float32)

  return jax.tree.map(draw, shapes)


def _stream(module, config, params, z, size):
  """Frames of a video that comes `size` latents at a time."""
  run = jax.jit(
    functools.partial(module.decode_chunk, config), static_argnums=3
  )
  state, parts = module.init_state(config, len(z), *z.shape[2:4]), []
  for at in range(0, z.shape[1], size):
    video, state = run(params, z[:, at : at + size], state, at == 0)
    parts.append(video)
  return np.concatenate(parts, 1)[:, config.time_factor - 1 :]


@functools.cache
def _case(module, config):
  """Parameters, latents and the frames of the plain decoder."""
  params = _random(module.init, config)
  z = jax.random.normal(jax.random.key(1), (1, 4, 2, 3, 16))
  return params, z, _stream(module, config, params, z, 2)


@pytest.mark.parametrize('times', [1, 2])
@pytest.mark.parametrize('out_first', [False, True])
def test_folded_upsampling_is_the_unfolded_one(times, out_first):
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 3, 5, 4), np.float32)
  kernel = rng.standard_normal((3, 3, 4, times, 6), np.float32)
  large = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
  plain = conv.conv2d(large, kernel.reshape(3, 3, 4, -1))
  folded = conv.fold_upsample(kernel)
  folded = conv.store(folded) if out_first else folded
  ours = conv.subpixel_conv(x, folded, times, out_first)
  assert ours.shape == (2, 6, 10, times, 6)
  np.testing.assert_allclose(ours.reshape(plain.shape), plain, atol=1e-5)


@pytest.mark.parametrize('out_first', [False, True])
def test_fast_tae_is_the_plain_one(out_first):
  params, z, plain = _case(tae, TAE)
  config, arranged = tae.fast(TAE, params, out_first)
  assert all(name.startswith('decoder_') for name in arranged)
  ours = _stream(tae, config, arranged, z, 2)
  assert plain.std() > 0.02
  np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize(
  'form, out_first', [('channels', True), ('native', True), ('frames', False)]
)
def test_fast_vae_is_the_plain_one(form, out_first):
  params, z, plain = _case(vae, VAE)
  base = dataclasses.replace(VAE, conv=form)
  config, arranged = vae.fast(base, params, out_first)
  assert sorted(arranged) == ['conv2', 'decoder']
  ours = _stream(vae, config, arranged, z, 2)
  scale = np.abs(plain).max()
  assert scale > 0.1
  np.testing.assert_allclose(ours / scale, plain / scale, atol=1e-5)


@pytest.mark.parametrize('module, config', [(tae, TAE), (vae, VAE)])
def test_arranging_twice_is_refused(module, config):
  params = _random(module.init, config)
  config, params = module.fast(config, params, False)
  with pytest.raises(ValueError, match='arranged already'):
    module.fast(config, params, False)
