"""Evaluation and benchmark tasks, end to end on a tiny random model."""

import json

import jax
import pytest
import tiny_bundle

from jaxvid.errors import UserError
from jaxvid.tasks import benchmark, evaluate, generate, player, resident


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
  assert 'colour' in capsys.readouterr().out


def test_long_videos_are_reported_over_time(weights, tmp_path):
  target = tmp_path / 'report.json'
  stream = _stream(weights, seconds=2.0)
  evaluate.run(
    evaluate.Config(stream, clips=2, batch=2, window=1, output=str(target))
  )
  over_time = json.loads(target.read_text())['over_time']
  assert len(over_time['accuracy']) == 2
  assert len(over_time['curves']['saturation']) == 2


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


def test_nothing_is_compiled_once_frames_flow(weights, tmp_path):
  """The first frames must not wait for a compiler."""
  config = _stream(
    weights, prompt='a red circle', output=str(tmp_path / 'x.mp4')
  )
  playback = player.prepare(config, generate.check(config))
  compiled = []

  def listen(event, duration, **_):
    if 'backend_compile' in event:
      compiled.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  pieces = list(playback.frames)
  assert len(pieces) >= 2
  assert not compiled
