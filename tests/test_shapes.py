"""The shapes world: what is drawn, said and scripted is exactly true."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from jaxvid.data.shapes import captions, clips, render, script
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import Background, Object, Scene, SceneSettings
from jaxvid.errors import UserError


def scenes(count, seed=0, **settings):
  rng = np.random.default_rng(seed)
  settings = SceneSettings(**settings)
  return [scene_lib.sample_scene(rng, settings) for _ in range(count)]


def gap(a, b, size):
  """Distance on the torus, per coordinate."""
  return np.abs(np.mod(a - b + size / 2, size) - size / 2)


def test_masks_are_the_pixels_of_the_colour():
  for scene in scenes(12, pan_probability=0.3):
    frames = render.render(scene, 7).astype(int)
    truth = render.ground_truth(scene, 7)
    assert frames.shape == (7, 64, 64, 3)
    assert truth.masks.sum(1).max() == 1  # Disjoint.
    for i, obj in enumerate(scene.objects):
      colour = np.array(scene_lib.COLOURS[obj.colour])
      pure = (frames == colour).all(-1)
      assert not (pure & ~truth.masks[:, i]).any()
      inside = frames[truth.masks[:, i]]
      # Antialiased edges aside, the inside has the very colour.
      assert (inside == colour).all(-1).mean() > 0.6


def test_positions_are_the_centres_of_the_masks():
  for scene in scenes(10, counts=(1.0,)):
    truth = render.ground_truth(scene, range(0, 60, 7))
    pixel = np.arange(64) + 0.5
    for frame, centre in enumerate(truth.positions[:, 0]):
      rows, columns = np.nonzero(truth.masks[frame, 0])
      for value, place in zip(centre, (columns, rows), strict=True):
        offset = np.mod(pixel[place] - value + 32, 64) - 32
        assert abs(offset.mean()) < 0.5


@pytest.mark.parametrize('motion', scene_lib.MOTIONS)
def test_speed_is_the_step_between_frames(motion):
  speed = 'none' if motion == 'still' else 'fast'
  obj = Object('circle', 'red', 'small', motion, speed, (0.9, 0.1), 3.0)
  truth = render.ground_truth(Scene((obj,)), 40)
  steps = np.diff(truth.positions[:, 0], axis=0)
  steps = np.mod(steps + 32, 64) - 32
  np.testing.assert_allclose(truth.velocity[:-1, 0], steps, atol=1e-9)
  np.testing.assert_allclose(
    truth.speed[:, 0], np.linalg.norm(truth.velocity[:, 0], axis=-1)
  )
  if motion in scene_lib.DIRECTIONS:
    direction = np.array(scene_lib.DIRECTIONS[motion])
    np.testing.assert_allclose(truth.velocity[0, 0], 2.0 * direction)
  elif motion == 'grow':
    rate = np.abs(np.diff(truth.radius[:, 0])).mean()
    assert abs(rate - scene_lib.nominal_speed(obj)) < 0.1 * rate
  else:
    expected = scene_lib.nominal_speed(obj)
    assert abs(truth.speed[:, 0].mean() - expected) < 0.1 * expected + 1e-9


def test_leaving_on_one_side_is_entering_on_the_other():
  inside = Object('triangle', 'red', 'large', 'still', 'none', (0.5, 0.5))
  corner = dataclasses.replace(inside, start=(0.0, 1.0))
  frames = [render.render(Scene((obj,)), 1)[0] for obj in (inside, corner)]
  np.testing.assert_array_equal(np.roll(frames[0], (32, 32), (0, 1)), frames[1])
  right = Object('cross', 'blue', 'medium', 'right', 'slow', (0.2, 0.4))
  first, turn = render.render(Scene((right,)), [0, 80])
  np.testing.assert_array_equal(first, turn)  # Once round the picture.


def test_any_frame_alone_equals_the_frame_in_its_video():
  for scene in scenes(4, pan_probability=1.0):
    video = render.render(scene, 30)
    np.testing.assert_array_equal(render.render(scene, [17, 4]), video[[17, 4]])


@pytest.mark.parametrize('height, width', [(128, 128), (48, 80)])
def test_sizes_scale_with_the_picture(height, width):
  scene = scenes(1, counts=(1.0,), height=height, width=width)[0]
  unit = min(height, width) / 64
  truth = render.ground_truth(scene, 5, height, width)
  small = render.ground_truth(scene, 5)
  assert render.render(scene, 5, height, width).shape == (5, height, width, 3)
  np.testing.assert_allclose(truth.radius, small.radius * unit)
  np.testing.assert_allclose(truth.velocity, small.velocity * unit)
  ratio = truth.full.sum() / small.full.sum()
  assert abs(ratio / unit**2 - 1) < 0.1


def test_objects_never_hide_more_than_half_of_each_other():
  for scene in scenes(6, counts=(0.0, 0.5, 0.5)):
    # One period of every motion is 160 frames: later frames only repeat.
    index = np.arange(0, 320, 3)
    full = render.full_masks(scene, index.astype(float), 64, 64)
    assert render.hidden(full).max() <= 0.5


def test_a_crossing_that_hides_too_much_is_refused():
  objects = (
    Object('circle', 'red', 'small', 'still', 'none', (0.5, 0.5)),
    Object('square', 'blue', 'large', 'right', 'slow', (0.0, 0.5)),
  )
  assert not render.keeps_clear(Scene(objects), SceneSettings())
  apart = dataclasses.replace(objects[0], start=(0.5, 0.0))
  assert render.keeps_clear(Scene((apart, objects[1])), SceneSettings())


def test_rebase_continues_the_world():
  for scene in scenes(6, pan_probability=0.5):
    later = scene_lib.rebase(scene, 23)
    expected = render.render(scene, range(23, 33)).astype(int)
    actual = render.render(later, 10).astype(int)
    assert np.abs(actual - expected).max() <= 1


def test_every_caption_parses_back():
  rng = np.random.default_rng(3)
  for scene in scenes(150, seed=3):
    texts = captions.captions(scene, 4, rng)
    assert len(set(texts)) == len(texts) > 1
    for text in texts:
      said = captions.parse(text)
      assert said is not None and captions.agrees(said, scene), text
      for obj in said.objects:
        assert obj.motion is not None and obj.speed is not None, text
    assert captions.parse(texts[0]) == captions.spec(scene) or (
      scene.background.shading == 'plain'
    )


def test_captions_repeat_with_the_generator():
  scene = scenes(1)[0]
  draw = [
    captions.captions(scene, 5, np.random.default_rng(7)) for _ in range(2)
  ]
  assert draw[0] == draw[1]


def test_parse_reads_what_people_type():
  said = captions.parse(
    'A big red circle moving right slowly on a dark background!'
  )
  assert said == captions.Spec(
    (captions.ObjectSpec('circle', 'red', 'large', 'right', 'slow'),), 'dark'
  )
  said = captions.parse('one green box jumping quickly and a blue ring')
  assert said.objects == (
    captions.ObjectSpec('square', 'green', None, 'bounce', 'fast'),
    captions.ObjectSpec('ring', 'blue'),
  )
  assert captions.parse('two cats on a sofa') is None
  assert captions.parse('a red blue circle moving left') is None


def test_heldout_combinations_stay_out_of_training():
  def combination(obj):
    return obj.shape, obj.colour, obj.motion, obj.speed

  for scene in scenes(100):
    for obj in scene.objects:
      assert not scene_lib.is_heldout(*combination(obj))
  pairs = captions.heldout_scenes(64)
  assert len({text for _, text in pairs}) == 64
  for scene, text in pairs:
    assert len(scene.objects) == 1
    assert scene_lib.is_heldout(*combination(scene.objects[0]))
    assert captions.agrees(captions.parse(text), scene)
  assert captions.heldout_scenes(64) == pairs
  motions = {scene.objects[0].motion for scene, _ in pairs}
  assert motions == set(scene_lib.MOTIONS)


def fields(scene):
  """Everything that a follow-up may change, by name."""
  flat = {
    (i, name): getattr(obj, name)
    for i, obj in enumerate(scene.objects)
    for name in ('shape', 'colour', 'size', 'motion', 'speed')
  }
  flat |= {(-1, n): getattr(scene.background, n) for n in ('tone', 'shading')}
  return flat | {(-1, 'pan'): scene.pan}


def test_follow_up_changes_exactly_one_thing():
  rng = np.random.default_rng(1)
  kinds = set()
  for scene in scenes(60, seed=1):
    changed, text, change = script.follow_up(scene, rng, frame=31)
    before, after = fields(scene), fields(changed)
    different = [key for key in before if before[key] != after[key]]
    assert different == [(change.index, change.attribute)]
    assert before[different[0]] == change.old
    assert after[different[0]] == change.new
    assert text != captions.caption(scene)
    assert captions.agrees(captions.parse(text), changed)
    there = scene_lib.positions(scene, np.array([31]))
    here = scene_lib.positions(changed, np.array([0]))
    assert gap(there, here, 64).max() < 1e-6
    kinds.add(change.attribute)
  assert kinds == set(scene_lib.CHANGES)


@pytest.mark.parametrize('split', ['train', 'heldout'])
def test_everything_changes_about_as_often(split):
  """Also where most scenes allow another size or background alone."""
  settings = SceneSettings(split=split, counts=(1.0, 0.0, 0.0))
  seen = collections.Counter()
  for seed in range(210):
    rng = np.random.default_rng((0, 1, seed))
    before, after = script.sample_script(
      rng, 'follow_up', 161, settings, shots=2
    ).shots
    assert before.caption != after.caption and after.start == 81
    old, new = fields(before.scene), fields(after.scene)
    seen.update({key[1] for key in old if old[key] != new[key]} - {'phase'})
  names = set(scene_lib.CHANGES)
  if split == 'heldout':
    names.remove('speed')  # It holds both speeds of no combination.
  assert names <= set(seen) and min(seen[name] for name in names) > 15, seen


def test_settings_weigh_what_changes():
  settings = SceneSettings(
    counts=(1.0,), motions=('left', 'grow', 'grow'), changes=('motion', 'size')
  )
  seen = collections.Counter()
  for seed in range(60):
    rng = np.random.default_rng(seed)
    before, after = script.sample_script(
      rng, 'follow_up', 81, settings, shots=2
    ).shots
    old, new = fields(before.scene), fields(after.scene)
    seen.update({key[1] for key in old if old[key] != new[key]} - {'phase'})
    assert after.scene.objects[0].motion in ('left', 'grow')
  assert set(seen) == {'motion', 'size'}
  with pytest.raises(UserError, match='weather'):
    SceneSettings(changes=('weather',))
  with pytest.raises(UserError, match='must name some'):
    SceneSettings(changes=())
  # Caches that are older than this setting stay valid where it says nothing.
  assert 'changes' in settings.content(True)
  assert 'changes' not in settings.content(False)
  assert 'changes' not in SceneSettings().content(True)


def test_script_is_continuous_where_only_a_colour_changes():
  rng = np.random.default_rng(2)
  for _ in range(40):
    made = script.sample_script(rng, 'follow_up', 60, shots=2)
    first, second = made.shots
    before, after = fields(first.scene), fields(second.scene)
    if [k[1] for k in before if before[k] != after[k]] != ['colour']:
      continue
    index = np.array([second.start, second.start + 9])
    old = render.ground_truth(first.scene, index)
    truth = script.script_truth(made)[1]
    np.testing.assert_array_equal(old.masks, truth.masks[[0, 9]])
    return
  raise AssertionError('no colour was changed')


def test_returning_scene_goes_on_where_it_was_left():
  rng = np.random.default_rng(4)
  made = script.sample_script(rng, 'returning', 120, shots=3)
  first, other, again = made.shots
  assert first.caption == again.caption != other.caption
  video = script.render_script(made)
  assert video.shape == (120, 64, 64, 3)
  resumed = render.render(first.scene, range(other.start, other.start + 4))
  shown = video[again.start : again.start + 4]
  assert np.abs(resumed.astype(int) - shown.astype(int)).max() <= 1
  np.testing.assert_array_equal(
    video[other.start : other.start + 3], render.render(other.scene, 3)
  )
  assert all((shot.start + 3) % 12 == 0 for shot in made.shots[1:])
  truths = script.script_truth(made)
  assert sum(len(truth.masks) for truth in truths) == 120


def test_bad_settings_get_one_clear_line():
  with pytest.raises(UserError, match="'purpel' is not one of red"):
    Object('circle', 'purpel', 'small', 'left', 'slow')
  with pytest.raises(UserError, match="'slow' is not one of none"):
    Object('circle', 'red', 'small', 'still', 'slow')
  held = scene_lib.is_heldout('ring', 'red', 'still', 'none')
  only = {'shapes': ('ring',), 'colours': ('red',), 'motions': ('still',)}
  with pytest.raises(UserError, match='leave nothing'):
    scenes(1, split='train' if held else 'heldout', **only)
  with pytest.raises(UserError, match='do not fit'):
    clips.ClipSettings(frames=20, kinds=(0.0, 1.0, 0.0))


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_dataset_builds_and_reads_back(tmp_path, capsys):
  from jaxvid.tasks import dataset

  settings = clips.ClipSettings(
    frames=33,
    height=16,
    width=32,
    train=3,
    validation=0,
    test=1,
    kinds=(0.0, 0.5, 0.5),
    shots=2,
  )
  dataset.run(dataset.Config(str(tmp_path), 'tiny', settings))
  folder = capsys.readouterr().out.splitlines()[-1].split(' (')[0]
  import tensorflow_datasets as tfds

  source = tfds.builder_from_directory(folder).as_data_source(split='train')
  assert len(source) == 3
  found = [clips.read_script(example) for example in source]
  expected = [clips.make_script(settings, 'train', i) for i in range(3)]
  key = str
  assert sorted(found, key=key) == sorted(expected, key=key)
  example = source[0]
  video = script.render_script(found[0], None, 16, 32)
  np.testing.assert_array_equal(example['video'], video)
  truth = script.script_truth(found[0], 16, 32)[0]
  first = example['objects'][: len(truth.masks), ..., 0]
  np.testing.assert_array_equal(first == 1, truth.masks[:, 0])
  np.testing.assert_allclose(
    example['positions'][0, : truth.positions.shape[1]],
    truth.positions[0],
    rtol=1e-6,
  )
  assert captions.parse(example['captions'][0].decode()) is not None
  (held,) = tfds.builder_from_directory(folder).as_data_source(split='test')
  scene = json.loads(held['shots']['scene'][0])
  assert all(
    scene_lib.is_heldout(o['shape'], o['colour'], o['motion'], o['speed'])
    for o in scene['objects']
  )
  # A second run finds it built; other settings never pass for it.
  dataset.run(dataset.Config(str(tmp_path), 'tiny', settings))
  assert capsys.readouterr().out.splitlines()[-1].startswith(folder)
  other = dataclasses.replace(settings, seed=1)
  assert clips.full_name('tiny', other) != clips.full_name('tiny', settings)


def test_backgrounds_pan_with_the_camera():
  still = Object('circle', 'red', 'small', 'still', 'none', (0.2, 0.2))
  scene = Scene((still,), Background('grey', 'striped'), 'right')
  video = render.render(scene, 41)
  # 0.4 px/frame to the left on the picture: 16 px, one stripe, in 40 frames.
  np.testing.assert_array_equal(np.roll(video[0], -16, 1), video[40])
