"""Frames that reach the host: counts, values, seams."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case
from golden import path

from jaxvid.convert import rules, torch_file
from jaxvid.diffusion import schedule as schedules
from jaxvid.memory import MemoryConfig
from jaxvid.models import vae
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream


@functools.cache
def _decoder():
  weights = torch_file.load(path('wan_vae/Wan2.1_VAE.pth'))
  return frames_lib.Decoder(vae, vae.VAEConfig(dim=6), rules.convert(weights))


@functools.cache
def _settings(aligned=True):
  memory = MemoryConfig(*wan_case.LATENT, 0, 6, 3, 'relative', aligned)
  return stream.Settings(wan_case.config(), memory, schedules.digits('2'))


def _state(settings):
  text = jax.random.normal(jax.random.key(3), (1, 5, 32))
  params = wan_case.unrolled_params()
  return params, stream.init(settings, params, text, jax.random.key(0))


def test_streamed_frames_are_those_of_the_whole_clip():
  settings = _settings()
  params, state = _state(settings)
  pieces = list(frames_lib.frames(settings, params, state, _decoder(), 3))
  assert [piece.shape[1] for piece in pieces] == [9, 12, 12]
  assert all(piece.dtype == np.uint8 for piece in pieces)
  params, state = _state(settings)
  _, latents = stream.rollout(settings, params, state, 3)
  whole, _ = vae.decode(_decoder().config, _decoder().params, latents)
  expected = np.asarray(frames_lib.to_uint8(whole)).astype(int)
  actual = np.concatenate(pieces, 1).astype(int)
  assert np.abs(actual - expected).max() <= 1


def test_a_stream_without_an_end_can_be_left_at_any_time():
  settings = _settings()
  params, state = _state(settings)
  endless = frames_lib.frames(settings, params, state, _decoder())
  first = [piece.shape[1] for piece in itertools.islice(endless, 4)]
  assert first == [9, 12, 12, 12]


@pytest.mark.parametrize('count', [1, 3, 4])
def test_a_video_goes_on_after_given_latents(count):
  settings = _settings(aligned=count % 3 == 0)
  params, state = _state(settings)
  given = jax.random.normal(jax.random.key(4), (1, count, 4, 6, 16))
  shown, decoder_state = frames_lib.decode(_decoder(), given)
  assert shown.shape == (1, 4 * count - 3, 32, 48, 3)
  state = stream.prefill(settings, params, state, given)
  pieces = list(
    frames_lib.frames(settings, params, state, _decoder(), 2, decoder_state)
  )
  assert [piece.shape[1] for piece in pieces] == [12, 12]


def test_bytes_and_floats():
  video = jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
  assert frames_lib.to_uint8(video).tolist() == [0, 0, 128, 255, 255]
  every = np.arange(256, dtype=np.uint8)
  back = frames_lib.to_uint8(jnp.asarray(frames_lib.to_float(every)))
  np.testing.assert_array_equal(back, every)
