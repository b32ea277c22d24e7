"""Measures of clips: chunk by chunk, against what their captions say."""

import math

import numpy as np
import pytest

from jaxvid.data.shapes import captions, render
from jaxvid.data.shapes.scene import Background, Object, Scene
from jaxvid.evaluation import measures, probe
from jaxvid.evaluation.measures import Measures


def shown(motion='right', speed='fast', colour='red', frames=33):
  obj = Object('square', colour, 'medium', motion, speed)
  scene = Scene((obj,), Background('dark'))
  return render.render(scene, frames), captions.spec(scene)


def add(kept, frames, said):
  reading = probe.probe(frames)
  kept.add(frames, reading, probe.score(reading, said), said)


def test_chunks_are_three_latents_and_the_first_latent_one_frame():
  parts = measures.bounds(81, 3)
  assert [(p.start, p.stop) for p in parts[:3]] == [(0, 9), (9, 21), (21, 33)]
  assert len(parts) == 7 and parts[-1].stop == 81
  assert len(measures.bounds(80, 3)) == 6  # the last one is cut short
  assert len(measures.bounds(81, 1)) == 21
  assert measures.bounds(8, 3) == []


def test_pace_is_the_speed_that_was_asked_for():
  kept = Measures()
  frames, said = shown()
  add(kept, frames, said)
  summary, curves = kept.summary(), kept.by_chunk()
  assert summary['right'].value == 1
  assert summary['pixel_speed'].value == pytest.approx(2.0, rel=0.05)
  for point in curves['pace']:
    assert point.value == pytest.approx(1.0, rel=0.1)
  assert [point.value for point in curves['motion']] == [1, 1, 1]
  # Half of the frames come twice: half as fast.
  add(kept, np.repeat(frames[:17], 2, 0)[:33], said)
  assert kept.clips['pace'][1] == pytest.approx(0.5, rel=0.1)
  assert kept.clips['change'][1] == pytest.approx(
    kept.clips['change'][0] / 2, rel=0.1
  )


def test_nothing_is_said_where_nothing_shows():
  kept = Measures(probe_every=2)
  _, said = shown()
  add(kept, np.full((33, 64, 64, 3), 20, np.uint8), said)
  assert kept.clips['colour'] == [0] and math.isnan(kept.clips['pace'][0])
  assert np.isnan(kept.chunks['shape'][0]).tolist() == [False, True, False]
  values = kept.values()
  assert values['clips']['pace'] == [None]
  assert values['chunks']['shape'] == [[0.0, None, 0.0]]
  assert kept.by_chunk()['pace'][0].count == 0


def test_speeds_that_a_caption_says():
  for motion, wanted in (('up', 2.0), ('orbit', 2.0), ('still', 0.0)):
    said = captions.ObjectSpec('ring', 'red', None, motion, 'fast')
    assert measures.said_speed(said) == wanted
  grow = captions.ObjectSpec('ring', 'red', None, 'grow', 'fast')
  assert math.isnan(measures.said_speed(grow))


def test_shares_have_wilsons_interval_and_the_rest_the_normal_one():
  assert measures.interval('shape', [1, 1, 0, math.nan]).low > 0.2
  assert measures.interval('shape', [0.5, 1.0]).low < 0.5
  assert measures.interval('pace', [1, 1]).low == 1
