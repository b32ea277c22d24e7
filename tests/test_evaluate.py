"""Evaluation and benchmark tasks, end to end on a tiny random model."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny_bundle

from jaxvid.data.shapes import script
from jaxvid.errors import UserError
from jaxvid.tasks import (
  benchmark,
  compare,
  evaluate,
  generate,
  player,
  random_bundle,
  resident,
  steering,
)
from jaxvid.tasks.sampler import Sampler


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return str(tiny_bundle.write(tmp_path_factory.mktemp('weights')))


def _stream(weights, **options):
  return generate.Config(
    weights=weights,
    decoder='tae',
    schedule='2',
    sink=0,
    window=3,
    seconds=options.pop('seconds', 1.0),
    **options,
  )


def test_report_has_every_attribute_with_its_interval(
  weights, tmp_path, capsys
):
  target = tmp_path / 'report.json'
  config = evaluate.Config(
    _stream(weights), clips=3, batch=2, output=str(target)
  )
  evaluate.run(config)
  report = json.loads(target.read_text())
  assert report['clips'] == 3
  for name in ('colour', 'shape', 'motion', 'count'):
    interval = report['accuracy'][name]
    assert interval['count'] == 3
    assert 0 <= interval['low'] <= interval['value'] <= interval['high'] <= 1
  # Which motion was read as which, of as many clips.
  assert sum(sum(seen.values()) for seen in report['motions'].values()) == 3
  printed = capsys.readouterr().out
  assert 'colour' in printed and 'read as' in printed


def test_long_videos_are_reported_over_time(weights, tmp_path):
  target = tmp_path / 'report.json'
  stream = _stream(weights, seconds=2.0)
  evaluate.run(
    evaluate.Config(
      stream, clips=2, batch=2, workers=0, window=1, output=str(target)
    )
  )
  over_time = json.loads(target.read_text())['over_time']
  assert len(over_time['accuracy']) == 2
  assert len(over_time['curves']['saturation']) == 2


def test_scripts_may_begin_with_true_frames():
  """An opening is decoded as it was drawn; the video is no longer for it."""
  stream = generate.Config(
    weights='shapes',
    schedule='euler',
    steps=1,
    seconds=3.0,
    switch=steering.Switching(cache='keep'),
  )
  config = evaluate.Config(
    stream, script='returning', clips=3, batch=2, opening=1
  )
  told = evaluate.asked(config)
  sampler = Sampler.load(stream)
  videos = [video for video, _ in evaluate.videos(config, sampler, told)]
  for video, story in zip(videos, told, strict=True):
    assert video.shape == (49, 64, 64, 3)
    true = script.render_script(story.script, range(9))
    error = np.mean(np.square(video[:9] - true.astype(np.float64)))
    assert 10 * np.log10(255**2 / error) > 20
  long = dataclasses.replace(config, opening=3)
  with pytest.raises(UserError, match='opening=3 goes beyond the first shot'):
    next(evaluate.videos(long, sampler, told))


def test_a_run_is_measured_without_a_bundle(weights, tmp_path):
  folder = pathlib.Path(weights).parent
  target = tmp_path / 'report.json'
  stream = _stream(str(folder / 'model'))
  parts = evaluate.Parts(
    str(folder / 'tokenizer'), '', str(folder / 'tae'), (16, 32)
  )
  evaluate.run(
    evaluate.Config(
      stream,
      parts,
      clips=3,
      batch=2,
      workers=0,
      details=True,
      output=str(target),
    )
  )
  report = json.loads(target.read_text())
  assert (report['ticks_per_clip'], report['calls_per_clip']) == (4, 4)
  curves = report['by_chunk']['curves']
  assert len(curves['sharpness']) == 1 and curves['sharpness'][0]['count'] == 3
  assert {'pace', 'colour', 'motion', 'saturation'} <= set(curves)
  assert len(report['values']['clips']['right']) == 3
  assert len(report['values']['chunks']['change']) == 3
  again = tmp_path / 'again.json'
  evaluate.run(
    evaluate.Config(
      _stream(weights),
      clips=3,
      batch=2,
      probe_every=0,
      workers=0,
      details=True,
      output=str(again),
    )
  )
  bundled = json.loads(again.read_text())
  assert bundled['values']['clips'] == report['values']['clips']
  assert 'pace' not in bundled['by_chunk']['curves']


def test_impossible_measurements(weights):
  with pytest.raises(UserError, match='clips must be at least 1, not 0'):
    evaluate.run(evaluate.Config(_stream(weights), clips=0))
  with pytest.raises(UserError, match='probe_every'):
    evaluate.run(evaluate.Config(_stream(weights), probe_every=-1))
  with pytest.raises(UserError, match='opening are for scripts'):
    evaluate.run(evaluate.Config(_stream(weights), opening=1))
  with pytest.raises(UserError, match='holds no vae'):
    evaluate.Sampler.load(dataclasses.replace(_stream(weights), decoder='vae'))


def test_systems_are_timed_in_one_run(weights, tmp_path, capsys):
  target = tmp_path / 'times.json'
  teacher = generate.Config(
    weights=weights, decoder='tae', schedule='teacher', steps=2, guidance=3.0
  )
  compare.run(
    compare.Config(
      systems=(
        compare.System('two', _stream(weights)),
        compare.System('teacher', teacher),
      ),
      ratios=(compare.Ratio('teacher', 'two', '39.7', 1e-6),),
      seconds=0.5,
      repeats=2,
      output=str(target),
    )
  )
  report = json.loads(target.read_text())
  two, whole = report['systems']
  assert (two['calls'], whole['calls']) == (2, 4)
  assert two['frames'] == whole['frames'] == 9
  assert 0 < two['denoise_only_s'] and 0 < two['first_frame_s']
  (ratio,) = report['ratios']
  assert ratio['reached'] and ratio['denoise']['count'] == 2
  assert 'paper: 39.7' in capsys.readouterr().out
  with pytest.raises(UserError, match="no system 'three'"):
    compare.Config(
      (compare.System('two', teacher),), (compare.Ratio('three', 'two'),)
    )


def test_random_weights_of_every_size_fit_together():
  for size in random_bundle.SIZES:
    made = random_bundle.make(size)
    dit, codec = made.configure('dit'), made.configure('vae')
    assert dit.out_dim == codec.z_dim == made.configure('tae').z_dim
    assert dit.text_dim == made.configure('text').dim
  params = random_bundle.make('nano').read('dit')
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  with pytest.raises(UserError, match="no size 'nan'"):
    random_bundle.make('nan')


def test_captions_asked_for_are_understood_and_reproducible():
  for objects in (1, 2, 3):
    pairs = evaluate.captioned(objects, 8, seed=4)
    assert all(len(spec.objects) == objects for spec, _ in pairs)
    assert pairs == evaluate.captioned(objects, 8, seed=4)
  with pytest.raises(UserError, match='objects'):
    evaluate.captioned(4, 8, seed=0)


def test_benchmark_row(weights):
  row = benchmark.measure(_stream(weights, prompt='a red circle', seconds=2.0))
  assert row['compiled_again'] == 0
  assert row['frames'] >= 32
  assert row['frames_per_s_on_host'] > 0
  if resident.held() is not None:
    # Linux keeps the two counts apart, each some pages behind the truth.
    assert 0 < row['stream_peak_mb'] <= 1.01 * row['peak_memory_mb']
  other = row | {'stream_peak_mb': row['stream_peak_mb'] + 2.0, 'frames': 99}
  both = benchmark.combine([row, other])
  assert both['frames'] == 99 and both['device'] == row['device']
  assert both['stream_peak_mb'] == pytest.approx(row['stream_peak_mb'] + 1)
  assert benchmark.compare([row]) is None


def test_memory_of_the_process_is_read():
  if resident.held() is None or not resident.start_anew():
    pytest.skip('needs Linux')
  before, _ = resident.held()
  block = b'x' * (1 << 25)
  assert resident.held()[0] > before + 30
  del block
  _, highest = resident.held()
  assert highest > before + 30
  assert resident.start_anew() and resident.held()[1] < highest - 20


def test_nothing_is_compiled_once_frames_flow(weights, tmp_path, compilations):
  """The first frames must not wait for a compiler."""
  config = _stream(
    weights, prompt='a red circle', output=str(tmp_path / 'x.mp4')
  )
  playback = player.prepare(config, generate.check(config))
  compiled = compilations()
  pieces = list(playback.frames)
  assert len(pieces) >= 2
  assert not compiled
