"""Intervals and drift curves on videos whose answers are known."""

import dataclasses
import math

import numpy as np
import pytest

from jaxvid.data.shapes import captions, render, script
from jaxvid.data.shapes.scene import SceneSettings, sample_scene
from jaxvid.evaluation import drift, findings, statistics
from jaxvid.evaluation.generated import Tally, read_clip
from jaxvid.evaluation.workers import ordered


def test_wilson_interval_of_textbook_values():
  interval = statistics.proportion(95, 100)
  assert interval.value == 0.95
  assert interval.low == pytest.approx(0.8882, abs=1e-4)
  assert interval.high == pytest.approx(0.9785, abs=1e-4)
  assert statistics.proportion(10, 10).high == pytest.approx(1.0)
  assert statistics.proportion(0, 3).low == 0.0
  assert math.isnan(statistics.proportion(0, 0).value)


def test_mean_interval_ignores_missing_values():
  interval = statistics.mean([1.0, 2.0, 3.0, math.nan])
  assert interval.count == 3
  assert interval.value == pytest.approx(2.0)
  assert interval.high - interval.value == pytest.approx(
    1.96 / 3**0.5, rel=1e-3
  )


def test_a_fading_video_drifts_and_a_steady_one_does_not():
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 256, (16, 16, 3)).astype(np.float32)
  grey = picture.mean(-1, keepdims=True)
  fade = np.linspace(0, 1, 64)[:, None, None, None]
  fading = (picture * (1 - fade) + grey * fade).astype(np.uint8)
  steady = np.repeat(picture[None].astype(np.uint8), 64, 0)
  assert np.ptp(drift.curves(steady)['saturation']) < 1e-6
  assert (np.diff(drift.curves(fading)['saturation']) < 0).all()


def test_blur_lowers_sharpness_and_motion_shows_as_change():
  board = np.indices((16, 16)).sum(0) % 2 * 255
  board = np.repeat(board[None, :, :, None], 3, -1).astype(np.uint8)
  soft = (board * 0.5 + 64).astype(np.uint8)
  assert drift.sharpness(board)[0] > 3 * drift.sharpness(soft)[0]
  moving = np.concatenate([board, 255 - board, board])
  assert drift.change(moving)[0] == 0
  np.testing.assert_allclose(drift.change(moving)[1:], 255, rtol=1e-3)


def rendered(count):
  """Small clips and what they show, drawn only when asked for."""
  rng = np.random.default_rng(0)
  for _ in range(count):
    scene = sample_scene(rng, SceneSettings(counts=(0.5, 0.5)))
    yield render.render(scene, 17, 32, 32), captions.spec(scene)


def test_clips_read_in_other_processes_give_the_same_tally():
  whole, drawn = Tally(), []

  def clips():
    for clip in rendered(6):
      drawn.append(clip)
      yield clip

  for clip, said in rendered(6):
    whole.add(clip, said)
  for workers in (0, 1):
    drawn.clear()
    merged, most = Tally(), 0
    for i, part in enumerate(ordered(read_clip, clips(), workers, ahead=2)):
      most = max(most, len(drawn) - i)
      merged.merge(part)
    assert merged == whole and most <= 3
  assert whole.report()['colour']['count'] == len(whole.right['colour'])


def test_what_fails_in_another_process_is_raised_here():
  with pytest.raises(TypeError):
    list(ordered(int, [([],), (1,)], 1))


def test_what_a_caption_leaves_open_is_remembered_or_not():
  rng = np.random.default_rng(5)
  settings = SceneSettings(
    counts=(1.0,), pan_probability=0.0, motions=('left', 'right')
  )
  one = sample_scene(rng, settings)
  full, open_ = (
    captions.parse(text)
    for text in (captions.caption(one), 'a red circle moving left')
  )
  (thing,) = one.objects
  size = 'small' if thing.size == 'large' else 'large'
  other = dataclasses.replace(
    one, objects=(dataclasses.replace(thing, size=size),)
  )
  first, second = (render.render(scene, 33) for scene in (one, other))
  assert findings.remembered(first, first, open_) == 1.0
  assert findings.remembered(first, second, open_) == pytest.approx(2 / 3)
  assert math.isnan(findings.remembered(first, second, full))


def test_what_changed_and_what_stayed_after_a_switch():
  """A true video meets its caption; the old one goes on keeps the rest."""
  rng = np.random.default_rng(3)
  settings = SceneSettings(counts=(1.0,), pan_probability=0.0)
  while True:
    told = script.sample_script(rng, 'follow_up', 113, settings, shots=2)
    before, after = (captions.spec(shot.scene) for shot in told.shots)
    if before.objects[0].colour != after.objects[0].colour:
      break
  start = told.shots[1].start
  true = script.render_script(told)
  values = findings.after_switch(true, before, (start, after))
  assert values == {'met': 1.0, 'kept': 1.0, 'stayed': 1.0}
  old = script.render_script(script.single(told.shots[0].scene, '', 113))
  values = findings.after_switch(old, before, (start, after))
  assert values['met'] == 0.0
  assert values['kept'] == values['stayed'] == 1.0
  values = findings.after_switch(true[: start + 40], before, (start, after))
  assert all(map(math.isnan, values.values()))  # Less than a second is left.
