"""LV-Bench: drift errors against plain formulas, and the command."""

import json
import math
import shutil

import numpy as np
import pytest

from jaxvid.data import video
from jaxvid.data.shapes import render
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.data.videos import lv_bench as annotations
from jaxvid.data.videos.captions import Caption, Script
from jaxvid.errors import UserError
from jaxvid.evaluation import (
  curves,
  drift,
  embeddings,
  lv_bench,
  scorers,
  segment,
  vde,
  video_set,
)
from jaxvid.tasks import annotations as annotations_task
from jaxvid.tasks import lv_bench as task
from jaxvid.tasks import scripts


def released(metrics, kind):
  """The released benchmark's arithmetic, in float32 as there."""
  metrics = np.array(metrics, np.float32)
  count = len(metrics)
  if count < 2:
    return 0.0
  if metrics[0] == 0:
    return math.inf
  drifting = np.abs(metrics[1:] - metrics[0]) / metrics[0]
  place = np.arange(2, count + 1, dtype=np.float32)
  weights = count - place + 1
  weights = np.log(weights) if kind == 'log' else weights
  return float((weights * drifting).sum())


@pytest.mark.parametrize('kind', vde.WEIGHTS)
def test_errors_equal_the_released_benchmark(kind):
  rng = np.random.default_rng(0)
  for count in (1, 2, 3, 10, 10, 10, 40):
    scores = rng.uniform(0.2, 1.0, count)
    ours, theirs = vde.error(scores, kind), released(scores, kind)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
  assert vde.error([0.0, 1.0, 2.0], kind) == released([0.0, 1, 2], kind)
  negative = [-0.5, 0.25, 1.0]
  assert vde.error(negative, kind) == pytest.approx(released(negative, kind))
  assert vde.error(negative, kind, 'paper') == -vde.error(negative, kind)


def test_errors_by_hand():
  assert vde.error([2.0, 3.0, 1.0]) == 2 * 0.5 + 1 * 0.5
  assert vde.error([2.0, 3.0, 1.0], 'log') == pytest.approx(math.log(2) / 2)
  assert vde.weights(10, 'linear').tolist() == list(range(9, 0, -1))
  assert vde.weights(10, 'log')[-1] == 0


@pytest.mark.parametrize(
  ('scores', 'form', 'error', 'state'),
  [
    ([0.0, 0.0, 0.0], 'paper', 0.0, 'zero'),
    ([0.0, 0.0, 0.0], 'lv_bench', math.inf, 'zero baseline'),
    ([0.0, 1.0, 0.0], 'paper', math.inf, 'zero baseline'),
    ([-1.0, 1.0, 0.0], 'paper', 5.0, 'negative baseline'),
    ([1.0, math.nan, 0.0], 'paper', math.nan, 'unseen'),
    ([], 'paper', math.nan, 'short'),
  ],
)
def test_special_scores_are_defined(scores, form, error, state):
  found = lv_bench.of_scores(np.array(scores), form)
  np.testing.assert_equal(found.errors['linear'], error)
  assert found.state == state


def test_chunks_leave_the_rest_out():
  assert vde.bounds(105)[0] == slice(0, 10)
  assert vde.bounds(105)[-1] == slice(90, 100)
  assert vde.bounds(9) == []


def moving(count, height=60, width=80, speed=1, seed=0):
  rng = np.random.default_rng(seed)
  size = (height // 4 + 1, (width + speed * count) // 4 + 1, 3)
  wide = rng.integers(0, 256, size, np.uint8).repeat(4, 0).repeat(4, 1)
  return np.stack(
    [wide[:height, speed * i : speed * i + width] for i in range(count)]
  )


def test_released_form_from_plain_loops():
  """Per chunk: similarities, and even frames that foretell the odd ones."""
  frames = moving(43)
  found = curves.read(iter(frames), curves.light())
  scores = lv_bench.chunk_scores(found, 'lv_bench', 4)
  for i in range(4):
    part = frames[10 * i : 10 * i + 10]
    rows = [embeddings.embed(frame).astype(float) for frame in part]
    total = 0.0
    for j in range(1, 10):
      before = rows[j] @ rows[j - 1] / np.linalg.norm(rows[j])
      first = rows[j] @ rows[0] / np.linalg.norm(rows[j])
      before /= np.linalg.norm(rows[j - 1])
      total += (before + first / np.linalg.norm(rows[0])) / 2
    assert scores['subject'][i] == pytest.approx(total / 9, rel=1e-5)
    even = part[::2].astype(float)
    between = (even[:-1] + even[1:]) / 2
    misfit = np.abs(between - part[1:-1:2]).mean((1, 2, 3))
    smooth = np.mean((255 - misfit) / 255)
    assert scores['motion'][i] == pytest.approx(smooth, rel=1e-5)
    sharp = drift.sharpness(part).mean()
    assert scores['clarity'][i] == pytest.approx(sharp, rel=1e-5)


def test_paper_form_measures_what_it_says():
  """Twice the speed is twice the motion; blur is less clarity."""
  frames = np.concatenate([moving(20), moving(20, speed=2)])
  found = curves.read(iter(frames), curves.light(segment.none))
  scores = lv_bench.chunk_scores(found, 'paper', 2)
  assert scores['motion'] == pytest.approx([1, 2], rel=0.3)
  assert scores['motion'][1] / scores['motion'][0] == pytest.approx(2, rel=0.1)
  assert scores['background'][0] < 0.2
  # Means inside chunks only: the jump between the two counts nowhere.
  assert found.energy[20] > 3
  still = np.repeat(moving(1), 40, 0)
  still[20:] = (still[20:] // 2) + 30
  found = curves.read(iter(still), curves.light(segment.none))
  scores = lv_bench.chunk_scores(found, 'paper', 2)
  assert scores['background'] == pytest.approx([1, 1], abs=0.02)
  assert scores['motion'] == pytest.approx([0, 0], abs=0.02)
  assert scores['clarity'][1] == pytest.approx(
    scores['clarity'][0] / 4, rel=0.1
  )
  assert scores['subject'][0] > scores['subject'][1] + 0.05


def shapes_clip(frames=40, seed=3):
  settings = SceneSettings(counts=(1.0,), pan_probability=0.0)
  scene = scene_lib.sample_scene(np.random.default_rng(seed), settings)
  size = settings.height, settings.width
  truth = render.ground_truth(scene, frames, *size)
  return render.render(scene, frames, *size), truth.masks.any(1)


def test_masks_of_the_shapes_world_are_exact():
  for seed in range(4):
    frames, truth = shapes_clip(9, seed)
    found = segment.shapes(frames)
    shared = (found & truth).sum() / (found | truth).sum()
    assert shared > 0.8  # All but the soft rim.


def test_subject_drift_is_seen_by_the_paper_form_alone():
  """A subject that slowly changes colour, and one that stays."""
  frames, masks = shapes_clip()
  changed = frames.copy()
  for i in range(len(frames)):
    share = i / len(frames)
    shifted = np.roll(frames[i], 1, -1)
    mixed = (1 - share) * frames[i] + share * shifted
    changed[i] = np.where(masks[i][..., None], mixed, frames[i])
  reader = curves.light(segment.shapes)

  def errors(video_, form):
    found = curves.read(iter(video_), reader, iter(masks))
    return lv_bench.drift(found, form)['subject'].errors['linear']

  assert errors(changed, 'paper') > 2 * errors(frames, 'paper')
  assert errors(changed, 'paper') > 3 * errors(changed, 'lv_bench')


def test_a_subject_that_leaves_has_drifted_and_one_that_never_was_is_unseen():
  frames, masks = shapes_clip()
  gone = masks.copy()
  gone[20:] = False
  reader = curves.light()
  found = curves.read(iter(frames), reader, iter(gone))
  scores = lv_bench.chunk_scores(found, 'paper')['subject']
  assert scores[0] > 0.5 and scores[-1] == 0
  found = curves.read(iter(frames), reader, iter(np.zeros_like(masks)))
  result = lv_bench.drift(found, 'paper')['subject']
  assert result.state == 'unseen' and math.isnan(result.errors['linear'])


@pytest.mark.parametrize('count', [0, 1, 2, 9, 10, 19])
def test_short_videos_never_fail(count):
  report = lv_bench.report(
    curves.read(iter(moving(20)[:count]), curves.light())
  )
  for form in vde.FORMS:
    for found in report[form].values():
      assert len(found['scores']) == (10 if count >= 10 else 0)
      assert (found['state'] == 'short') == (count < 10)


def test_tiny_pictures_and_flat_ones_never_fail():
  for frames in (
    np.zeros((20, 2, 2, 3), np.uint8),
    np.full((20, 1, 9, 3), 200, np.uint8),
    np.full((20, 40, 50, 3), 90, np.uint8),
  ):
    found = curves.read(iter(frames), curves.light())
    assert len(lv_bench.report(found)['paper']) == 5


@pytest.fixture
def folder(tmp_path):
  """Three videos, one of them in a folder, and a file that is none."""
  (tmp_path / 'deep').mkdir()
  for i, name in enumerate(('a.mp4', 'b.mp4', 'deep/c.mp4')):
    with video.writer(tmp_path / name) as write:
      write(moving(24 if i else 6, seed=i))
  (tmp_path / 'bad.mp4').write_text('nothing')
  return tmp_path


def config_of(folder, **changes):
  return task.Config(videos=str(folder), workers=0, **changes)


def test_the_command_scores_a_folder(folder, capsys):
  task.run(config_of(folder))
  out = folder / 'lv_bench'
  report = json.loads((out / 'deep' / 'c.mp4.json').read_text())
  assert report['frames'] == 24 and report['scorers']['clarity'] == 'light'
  found = report['paper']['clarity']
  assert found['vde']['linear'] == pytest.approx(
    vde.error(found['scores'], 'linear', 'paper'), rel=1e-4
  )
  summary = json.loads((out / 'summary.json').read_text())
  assert summary['videos'] == 3 and 'bad.mp4' in summary['unreadable']
  clarity = summary['lv_bench']['clarity']
  assert clarity['linear']['count'] == 2
  assert clarity['left_out'] == {'a.mp4': 'short'}
  lines = (out / 'scores.csv').read_text().splitlines()
  assert len(lines) == 1 + 3 * 2 * 5 * 2 and lines[0].startswith('video,form')
  assert (out / 'plots' / 'clarity.png').exists()
  assert (out / 'plots' / 'videos' / 'b.mp4.png').exists()
  shown = capsys.readouterr().out
  assert '3 videos' in shown and 'bad.mp4: cannot read' in shown


def test_finished_reports_are_not_made_again(folder, monkeypatch, capsys):
  task.run(config_of(folder, plots=False))
  monkeypatch.setattr(video_set, 'score', pytest.fail)
  task.run(config_of(folder, plots=False))
  assert '4 of 4 videos were scored before' in capsys.readouterr().err
  monkeypatch.undo()
  task.run(config_of(folder, plots=False, chunks=5))
  report = json.loads((folder / 'lv_bench' / 'b.mp4.json').read_text())
  assert len(report['paper']['motion']['scores']) == 5


def test_masks_beside_the_videos(folder):
  masks = folder / 'masks'
  (masks / 'deep').mkdir(parents=True)
  np.save(masks / 'b.npy', np.ones((24, 60, 80), bool))
  np.save(masks / 'deep' / 'c.npy', np.ones((24, 9, 9), bool))
  task.run(config_of(folder, masks=str(masks), plots=False))
  out = folder / 'lv_bench'
  report = json.loads((out / 'b.mp4.json').read_text())
  assert report['scorers']['segmenter'] == 'b.npy'
  assert (
    'masks of c.mp4'
    in json.loads((out / 'deep/c.mp4.json').read_text())['error']
  )


def bright(images):
  return np.array([image.mean() / 255 for image in images])


def test_scorers_of_your_own(folder):
  chosen = scorers.ScorerConfig(
    clarity='test_lv_bench:bright', segmenter='none'
  )
  task.run(config_of(folder, scorers=chosen, plots=False))
  report = json.loads((folder / 'lv_bench' / 'b.mp4.json').read_text())
  assert report['scorers']['clarity'] == 'test_lv_bench:bright'
  assert 0 < report['lv_bench']['clarity']['scores'][0] < 1
  assert report['paper']['clarity']['scores'][0] > 1
  for changes in ({'clarity': 'good'}, {'segmenter': 'a:b'}):
    with pytest.raises(UserError, match=r'clarity must be|segmenter'):
      scorers.make(scorers.ScorerConfig(**changes))


def test_impossible_jobs(tmp_path):
  for config, message in (
    (task.Config(), 'which videos'),
    (task.Config(videos=str(tmp_path / 'no')), 'is not a folder'),
    (task.Config(videos=str(tmp_path)), 'holds no video'),
  ):
    with pytest.raises(UserError, match=message):
      task.run(config)
  with pytest.raises(UserError, match='at least 2'):
    task.Config(chunks=1)


@pytest.fixture
def listed(tmp_path):
  path = tmp_path / 'list.jsonl'
  rows = [
    {
      'video': f'{i}.mp4',
      'captions': ['It starts (00s - 01s)', 'Ends (02s - 03s)'],
    }
    for i in range(20)
  ]
  path.write_text('\n'.join(map(json.dumps, rows)))
  return path


def test_annotations_become_a_data_set(listed, tmp_path, capsys):
  config = annotations_task.Config(str(listed), str(tmp_path / 'data'))
  annotations_task.run(config)
  place, _, counts = capsys.readouterr().out.strip().partition(' ')
  assert counts == '(train 16, test 4)'
  test = annotations.read(place, 'test')
  train = annotations.read(place, 'train')
  assert len({s.name for s in test + train}) == 20
  assert test[0].captions == (
    Caption(0.0, 2.0, 'It starts'),
    Caption(2.0, 4.0, 'Ends'),
  )
  loaded = scripts.load(scripts.ScriptConfig(source=place))
  again = scripts.load(scripts.ScriptConfig(source=str(listed)))
  assert {s.name for s in loaded} == {s.name for s in again}
  other = scripts.load(scripts.ScriptConfig(source=str(listed), seed=1))
  assert {s.name for s in other} != {s.name for s in again}
  everything = scripts.ScriptConfig(source=str(listed), split='all', count=3)
  assert len(scripts.load(everything)) == 3


def test_prompts_follow_the_script():
  script = Script('x', (Caption(0, 2, 'a'), Caption(3, 4, 'b')))
  said = [scripts.prompt_at(script.captions, t) for t in (0, 1.9, 2.5, 3, 9)]
  assert said == ['a', 'a', 'a', 'b', 'b']
  assert scripts.file_name('Some dir/video 1.MP4') == 'Some-dir-video-1.mp4'


def test_missing_videos_are_generated_first(listed, tmp_path, monkeypatch):
  """The stream itself is tested elsewhere; here a stand-in plays."""
  folder = tmp_path / 'videos'
  made = []

  class Sampler:
    class request:
      class schedule:
        bidirectional = False

    @classmethod
    def load(cls, config):
      return cls()

  def play(sampler, script, seconds, number):
    made.append((script.name, number))
    yield moving(12, seed=number)

  from jaxvid.tasks import sampler as samplers

  monkeypatch.setattr(samplers, 'Sampler', Sampler)
  monkeypatch.setattr(scripts, 'play', play)
  wanted = scripts.ScriptConfig(source=str(listed))
  task.run(config_of(folder, scripts=wanted, plots=False))
  first = list(made)
  assert len(first) == 4 and [number for _, number in first] == [0, 1, 2, 3]
  shutil.rmtree(folder / 'lv_bench')
  (folder / scripts.file_name(first[2][0])).unlink()
  task.run(config_of(folder, scripts=wanted, plots=False))
  assert made[4:] == [first[2]]
