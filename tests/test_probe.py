"""The probe reads back what was drawn, sharp or blurred."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from jaxvid.data.shapes import captions, render
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import Background, Object, Scene, SceneSettings
from jaxvid.errors import UserError
from jaxvid.evaluation import probe

# `python benchmarks/probe.py` measures 500 clips of each kind.


def spoil(frames, seed, sigma=0.7, noise=4.0):
  """Blur and noise as of a small autoencoder."""
  blurred = ndimage.gaussian_filter(
    frames.astype(np.float32), (0.5, sigma, sigma, 0), mode='wrap'
  )
  blurred += np.random.default_rng(seed).normal(0, noise, frames.shape)
  return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('spoiled', [False, True])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_real_renders_are_read_right(count, spoiled):
  settings = SceneSettings(
    counts=tuple(float(i + 1 == count) for i in range(count)), split='all'
  )
  rng = np.random.default_rng(count)
  scores = []
  for seed in range(10):
    scene = scene_lib.sample_scene(rng, settings)
    frames = render.render(scene, 81)
    reading = probe.probe(spoil(frames, seed) if spoiled else frames)
    assert reading.pan == scene.pan
    assert reading.tone == scene.background.tone
    scores.append(probe.score(reading, scene))
  result = probe.accuracy(scores)
  assert set(result) == {'count', *probe.ATTRIBUTES}
  for name, value in result.items():
    assert value >= (0.95 if spoiled else 0.99), (name, value)


@pytest.mark.parametrize('speed', ['slow', 'fast'])
@pytest.mark.parametrize('motion', ['left', 'down', 'bounce', 'orbit', 'grow'])
def test_speed_is_read_in_pixels_per_frame(motion, speed):
  obj = Object('square', 'cyan', 'medium', motion, speed, (0.9, 0.3), 2.0)
  for pan in ('none', 'left'):
    ground = Background('navy', 'striped')
    frames = render.render(Scene((obj,), ground, pan), 81, 128, 128)
    (found,) = probe.probe(frames).objects
    assert (found.motion, found.speed) == (motion, speed)
    expected = 2 * scene_lib.nominal_speed(obj)  # 2 pixels to the unit.
    assert abs(found.pixel_speed / expected - 1) < 0.08


def test_centres_are_found_across_the_edge():
  obj = Object('triangle', 'orange', 'medium', 'right', 'fast', (0.9, 0.01))
  scene = Scene((obj,), Background('brown', 'shaded'))
  (found,) = probe.probe(render.render(scene, 40)).objects
  truth = render.ground_truth(scene, 40)
  gap = np.mod(found.centre - truth.positions[:, 0] + 32, 64) - 32
  assert np.abs(gap).max() < 0.4
  np.testing.assert_allclose(found.radius, truth.radius[:, 0], rtol=0.05)


def test_a_hidden_object_keeps_its_shape_and_place():
  back = Object('square', 'red', 'medium', 'still', 'none', (0.5, 0.5))
  front = Object('circle', 'blue', 'small', 'still', 'none', (0.6, 0.6))
  reading = probe.probe(render.render(Scene((back, front)), 20))
  assert reading.count == 2
  red = next(o for o in reading.objects if o.colour == 'red')
  assert (red.shape, red.size, red.motion) == ('square', 'medium', 'still')
  np.testing.assert_allclose(red.centre[0], [32, 32], atol=0.6)


def test_a_slow_start_does_not_slow_the_reading():
  obj = Object('ring', 'yellow', 'large', 'up', 'fast', (0.5, 0.5))
  index = np.maximum(np.arange(81) - 16, 0)
  (found,) = probe.probe(render.render(Scene((obj,)), index)).objects
  assert (found.motion, found.speed) == ('up', 'fast')
  assert abs(found.pixel_speed - 2.0) < 0.1


def test_long_clips_are_read_by_windows():
  obj = Object('cross', 'white', 'medium', 'orbit', 'slow', (0.5, 0.5))
  (found,) = probe.probe(render.render(Scene((obj,)), 300)).objects
  assert (found.motion, found.speed) == ('orbit', 'slow')


def test_duplicates_count_and_missing_objects_fail():
  obj = Object('circle', 'green', 'small', 'still', 'none', (0.25, 0.5))
  twice = Scene((obj, dataclasses.replace(obj, start=(0.75, 0.5))))
  reading = probe.probe(render.render(twice, 9))
  assert reading.count == 2 and len(reading.objects) == 1
  assert probe.score(reading, Scene((obj,)))['count'] == [False]
  blank = np.full((9, 64, 64, 3), 20, np.uint8)
  nothing = probe.probe(blank)
  assert nothing.count == 0 and nothing.objects == ()
  verdict = probe.score(nothing, captions.parse('a red ball moving left fast'))
  assert verdict == {
    'count': [False],
    'colour': [False],
    'shape': [False],
    'motion': [False],
    'speed': [False],
    'size': [],
  }


def test_noise_is_no_object():
  noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3))
  probe.probe(noise.astype(np.uint8))  # Reads something, breaks nowhere.


def test_wrong_arrays_are_refused():
  with pytest.raises(UserError, match='uint8'):
    probe.probe(np.zeros((4, 64, 64, 3), np.float32))
