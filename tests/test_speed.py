"""The benchmark of streams, at a size that proves only that it works."""

import dataclasses
import itertools
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.evaluation import speed_report
from jaxvid.ops.attention import fp8
from jaxvid.quantization import tree
from jaxvid.stream import stream
from jaxvid.tasks import (
  speed,
  speed_kernels,
  speed_rig,
  train_speed,
)

TINY = speed.Config(size='tiny', height=16, width=32, chunks=2)


def test_every_figure_of_a_stream(tmp_path, capsys):
  output = tmp_path / 'speed.json'
  config = dataclasses.replace(
    TINY,
    systems=('longlive',),
    soak=0.01,
    speed=speed.Speed(deferred=True),
    output=str(output),
  )
  speed.run(config)
  report = json.loads(output.read_text())
  (row,) = report['rows']
  for name in (
    'frames_per_s',
    'denoise_frames_per_s',
    'in_flight_ms',
    'clip_s',
    'first_frame_s',
    'first_frame_with_text_s',
    'chunk_p50_ms',
    'chunk_p90_ms',
    'chunk_p99_ms',
    'jitter_ms',
    'forward_ms',
    'decode_ms',
    'compile_s',
    'warm_start_s',
    'switch_ms',
    'switch_to_frames_ms',
    'soak_last_to_first',
  ):
    assert row[name] > 0, name
  assert row['first_frame_with_text_s'] > row['first_frame_s']
  assert row['memory'] == 'S3W9' and row['deferred'] and row['fused']
  assert report['machine']['jax'] == jax.__version__
  assert re.search(r'\| longlive \| [\d.]+ \|', capsys.readouterr().out)
  assert output.with_suffix('.png').exists()


def test_the_waterfall_changes_one_thing_at_a_time():
  steps = list(speed_rig.WATERFALL.values())[:-1]
  for before, after in itertools.pairwise(steps):
    a, b = dataclasses.asdict(before), dataclasses.asdict(after)
    changed = {name for name in a if a[name] != b[name]}
    assert changed in (
      {'window'},
      {'schedule', 'commit'},
      {'schedule'},
      {'decoder'},
    )


@pytest.mark.parametrize('size, gb', [('1.3b', 2.84), ('8b', 16.3)])
def test_full_size_weights(size, gb):
  system = speed_rig.SYSTEMS['one_step']
  settings = speed_rig.settings_of(
    system, size, (480, 832), speed.Speed(dtype='bfloat16')
  )
  assert settings.schedule.calls(5) == 1 and settings.memory.chunk == 1
  shapes = jax.eval_shape(lambda: speed_rig.random_transformer(settings))
  total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
  assert total / 1e9 == pytest.approx(gb, rel=0.03)


def test_figures_stand_beside_limits_and_predictions():
  settings = speed_rig.settings_of(
    speed_rig.SYSTEMS['diagdistill'], '1.3b', (480, 832), speed.Speed()
  )
  row = speed_report.estimates(settings, 'tae', '1.3b', 'NVIDIA H200')
  assert row['limit_frames_per_s'] == pytest.approx(163, rel=0.01)
  assert row['predicted_frames_per_s'] == pytest.approx(113, rel=0.01)
  row |= {'name': 'x', 'frames_per_s': 81.5, 'forward_ms': 50.0}
  row |= speed_report.shares(row)
  assert row['share_of_limit'] == pytest.approx(0.5, rel=0.01)
  assert row['share_of_datasheet'] == pytest.approx(0.572, rel=0.01)
  machine = {'device': 'NVIDIA H200', 'jax': '0', 'date': 'today'}
  table = speed_report.table({'rows': [row], 'machine': machine})
  assert '| 81.5 | 113.' in table and '50%' in table
  assert speed_report.estimates(settings, 'tae', '1.3b', 'cpu') == {}


def test_streams_in_8_bits_are_timed_too():
  how = speed.Speed(quantization='fp8', key_dtype='e4m3')
  system = speed_rig.SYSTEMS['one_step']
  rig = speed_rig.build(system, 'tiny', (16, 32), how)
  assert tree.is_quantized(rig.params)
  state = rig.start()
  assert state.memory.k[0].dtype == fp8.E4M3
  _, latents = stream.jitted_step(rig.settings)(
    rig.params, state, stream.chunk_ticks(rig.settings.schedule, 0)
  )
  assert np.isfinite(latents).all() and np.std(latents) > 0.1


@pytest.mark.parametrize(
  'options, frames',
  [
    ({}, 113),
    ({'quantization': 'int8'}, 113),
    ({'quantization': 'fp8'}, 131),
    ({'quantization': 'fp8', 'backend': 'mosaic_fp8'}, 156),
  ],
)
def test_predictions_know_how_a_stream_is_run(options, frames):
  how = speed.Speed(**options)
  settings = speed_rig.settings_of(
    speed_rig.SYSTEMS['diagdistill'], '1.3b', (480, 832), how
  )
  row = speed_report.estimates(
    settings, 'tae', '1.3b', 'NVIDIA H200', how.precision
  )
  assert row['predicted_frames_per_s'] == pytest.approx(frames, rel=0.01)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'systems': ('diagdistil',)}, 'mean diagdistill'),
    ({'parts': ('ticking',)}, 'no part'),
    ({'size': 'huge'}, "not 'huge'"),
    ({'width': 30}, 'multiples of 16'),
    ({'chunks': 1}, 'at least 2'),
  ],
)
def test_bad_settings_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    speed.run(dataclasses.replace(TINY, **options))


def test_a_bare_machine_can_run_the_jobs_of_a_gpu():
  """Without packages for data, videos, configs, text and plots."""
  code = """
import sys
for name in ('ml_collections', 'tensorflow_datasets', 'grain', 'av', 'PIL',
             'sentencepiece', 'ftfy', 'matplotlib', 'tensorboardX',
             'safetensors'):
  sys.modules[name] = None
from benchmarks import gpu
from jaxvid.tasks import speed, speed_kernels, speed_measure, speed_rig
from jaxvid.tasks import train_speed
for name, seconds, settings in gpu.JOBS:
  settings = settings | {'speed': speed.Speed(**settings.get('speed', {}))}
  speed.check(speed.Config(**settings))
  assert seconds <= gpu.LIMIT
assert gpu.LIMIT <= 9 * 60
next(iter(speed_kernels._kernels('tiny')))
"""
  root = pathlib.Path(__file__).parent.parent
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def test_kernels_and_training_steps_are_timed():
  rows = {row['name']: row for row in speed_kernels.measure('tiny', 0.0)}
  assert rows['qkv']['tera_per_s'] > 0
  assert 'attention xla, 96 x 288' in rows
  row = train_speed.measure(
    train_speed.Config('tiny', 16, 32, frames=2, steps=1)
  )['rows'][0]
  assert row['loss_is_finite'] and row['tokens'] == 4
  assert row['tokens_per_s'] == pytest.approx(4 / row['step_s'])
