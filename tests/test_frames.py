"""Frames that reach the host: counts, values, seams."""

import dataclasses
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


def test_another_device_decodes_the_same():
  settings = _settings()
  other = jax.devices()[1]
  plain = _decoder()
  decoder = dataclasses.replace(
    plain, params=jax.device_put(plain.params, other), device=other
  )
  videos = []
  for each in (plain, decoder):
    params, state = _state(settings)
    videos.append(list(frames_lib.frames(settings, params, state, each, 2)))
  np.testing.assert_array_equal(*(np.concatenate(v, 1) for v in videos))
  z = jnp.zeros((1, 3, 4, 6, 16))
  state = decoder.init_state(z)
  video, state = decoder(z, state, False)
  assert video.devices() == {other}
  assert all(leaf.devices() == {other} for leaf in jax.tree.leaves(state))


def test_the_next_chunk_is_under_way_while_frames_are_shown():
  settings, asked = _settings(), []

  class Noted(frames_lib.Decoder):
    def __call__(self, latents, state, first):
      asked.append(first)
      return super().__call__(latents, state, first)

  params, state = _state(settings)
  decoder = Noted(**vars(_decoder()))
  counts = [
    len(asked) for _ in frames_lib.frames(settings, params, state, decoder, 5)
  ]
  # On a CPU the first frames leave before anything else is started.
  assert counts == [1, 3, 4, 5, 5]
  assert asked == [True, False, False, False, False]


@pytest.mark.parametrize('pinned', [None, False, True])
def test_copies_to_the_host_keep_every_byte(pinned):
  video = jnp.arange(256, dtype=jnp.uint8).reshape(1, 2, 8, 4, 4)
  copied = frames_lib.start_copy(video, pinned)
  np.testing.assert_array_equal(np.asarray(copied), video)


def test_bytes_and_floats():
  video = jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
  assert frames_lib.to_uint8(video).tolist() == [0, 0, 128, 255, 255]
  every = np.arange(256, dtype=np.uint8)
  back = frames_lib.to_uint8(jnp.asarray(frames_lib.to_float(every)))
  np.testing.assert_array_equal(back, every)
