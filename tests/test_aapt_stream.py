"""Streams that start from a frame: given, made, refused; step by step."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_bundle

from jaxvid.data import picture
from jaxvid.errors import UserError, UserNotice
from jaxvid.models.conditioning import RECYCLED
from jaxvid.storage import weights
from jaxvid.stream import live, stream
from jaxvid.tasks import first_frame, generate, player, presets
from jaxvid.tasks.sampler import Sampler

WIDE = dataclasses.replace(tiny_bundle.DIT, in_dim=32)
AAPT = {
  name: value
  for name, value in presets.AAPT.items()
  if name not in ('weights', 'starter', 'decoder', 'window')
}


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  """Folders of a text-to-video bundle and of one that recycles frames."""
  found = {}
  for name in ('plain', 'recycles'):
    folder = tmp_path_factory.mktemp(name)
    found[name] = tiny_bundle.write(folder)
  folder = found['recycles'].parent / 'model'
  head, params = weights.load(folder)
  params['dit'] = tiny_bundle.random('dit', WIDE)
  head |= {
    'dit': dataclasses.asdict(WIDE),
    'inputs': dataclasses.asdict(RECYCLED),
  }
  weights.save(folder, params, head)
  return found


def make(places, name, **changes) -> generate.Config:
  parts = {
    'prompt': 'a red circle',
    'weights': str(places[name]),
    'decoder': 'tae',
    'seconds': 0.5,
    'window': 2,
  }
  return generate.Config(**(parts | AAPT | changes))


def draw(folder, height, width):
  path = folder / 'first.png'
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  picture.write_png(path, image)
  return str(path)


def test_a_picture_of_another_size_is_resized_with_a_warning(places, tmp_path):
  path = draw(tmp_path, 24, 40)
  with pytest.warns(UserNotice, match='40 x 24 pixels, the video 32 x 16'):
    frame = first_frame.read_picture(path, (16, 32))
  assert frame.shape == (16, 32, 3)
  first_frame.read_picture(path, (24, 40))  # Nothing to say.
  with pytest.raises(UserError, match='less than half of it'):
    first_frame.read_picture(draw(tmp_path, 40, 16), (16, 32))


def test_a_video_comes_after_its_first_frame(places, tmp_path):
  config = make(places, 'recycles', first_frame=draw(tmp_path, 16, 32))
  request = generate.check(
    dataclasses.replace(config, output=str(tmp_path / 'a.mp4'))
  )
  playback = player.prepare(config, request)
  before, frames = list(playback.before), list(playback.frames)
  assert sum(map(len, before)) == 1
  assert [piece.shape[1] for piece in frames] == [4, 4]
  config = make(places, 'recycles')
  with pytest.raises(UserError, match='give first_frame, or starter'):
    player.prepare(config, request)


def test_weights_without_the_channels_are_refused(places):
  bundle = player.open_model(make(places, 'plain'))
  with pytest.raises(UserError, match='no channels for a recycled frame'):
    first_frame.model_inputs(make(places, 'plain'), bundle)
  free = make(places, 'plain', recycled=False)
  assert first_frame.model_inputs(free, bundle).plain


def test_a_starter_makes_the_first_frame(places):
  config = make(places, 'recycles', starter=str(places['plain']))
  latents = first_frame.made(config, (16, 32), 16)
  assert latents.shape == (1, 1, 2, 4, 16) and np.isfinite(latents).all()
  again = first_frame.made(config, (16, 32), 16)
  np.testing.assert_array_equal(latents, again)
  with pytest.raises(UserError, match='channels, 4 are needed'):
    first_frame.made(config, (16, 32), 4)


def test_live_steps_are_the_stream_and_tell_their_time(places):
  sampler = Sampler.load(make(places, 'recycles'))
  text, _ = sampler.embed(['a red circle'])
  key = jax.random.key(3)
  first = jax.random.normal(jax.random.key(4), (1, 1, 2, 4, 16))
  model = live.Live(sampler.settings, sampler.params, sampler.decoder)
  state, shown = live.start(model, text, key, first)
  assert shown.shape == (1, 1, 16, 32, 3)
  times, frames = [], []
  for _ in range(3):
    state, more = live.step(model, state)
    assert more.shape == (1, 4, 16, 32, 3) and state.seconds > 0
    times.append(state.seconds)
    frames.append(more)
  begun = stream.init(sampler.settings, sampler.params, text, key)
  begun = stream.start_from(sampler.settings, begun, first)
  _, latents = stream.rollout(sampler.settings, sampler.params, begun, 3)
  np.testing.assert_allclose(
    state.stream.inputs.recycled, latents[:, -1:], atol=1e-5
  )
  told = live.latency(times)
  assert told['p50_ms'] <= told['p99_ms'] and told['steps'] == 3


def test_measurements_start_from_the_scenes_that_captions_describe(places):
  sampler = Sampler.load(make(places, 'recycles'))
  pictures = iter(np.zeros((3, 16, 32, 3), np.uint8))
  clips = list(sampler.clips(['a red circle'] * 3, 2, 0, pictures))
  assert [clip.shape for clip in clips] == [(9, 16, 32, 3)] * 3
