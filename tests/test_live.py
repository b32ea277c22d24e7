"""Steered videos: scripts, typed prompts, saved and resumed streams."""

import dataclasses
import io
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_bundle

from jaxvid.data import video
from jaxvid.errors import UserError
from jaxvid.stream import stream
from jaxvid.stream.session import Session
from jaxvid.tasks import generate, live, player, state_file
from jaxvid.tasks.generate import Config
from jaxvid.tasks.steering import Saving, Switching

FIRST, SECOND = 'a red circle moves left', 'a blue square moves right'


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return str(tiny_bundle.write(tmp_path_factory.mktemp('weights')))


@pytest.fixture
def make(weights, tmp_path):
  def make(name='a', **settings):
    defaults = dict(
      prompt=FIRST,
      weights=weights,
      schedule='1',
      commit='clean',
      decoder='tae',
      seconds=2.5,
      window=3,
      output=str(tmp_path / f'{name}.mp4'),
    )
    return Config(**(defaults | settings))

  return make


def _script(folder, *cues, name='s.jsonl'):
  path = folder / name
  lines = (json.dumps({'time': t, 'prompt': p}) for t, p in cues)
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


def _frames(config) -> np.ndarray:
  return video.read_video(config.output, 16, 32)


def _run(config) -> np.ndarray:
  """The very frames, as they leave for the file."""
  request = generate.check(config)
  playback = player.prepare(config, request)
  pieces = [piece[0] for piece in playback.frames]
  frames = np.concatenate(pieces)
  return frames[: playback.total or request.num_frames]


def test_a_script_changes_the_video_from_its_chunk_on(make, tmp_path, capsys):
  script = _script(tmp_path, (0, FIRST), (1.0, SECOND))
  plain = _run(make())
  results = {}
  for cache in ('recache', 'upstream', 'keep', 'none'):
    config = make(
      cache, prompt='', switch=Switching(cache=cache, script=script)
    )
    results[cache] = _run(config)
    # At 1 s or later a chunk begins at frame 21.
    np.testing.assert_array_equal(results[cache][:21], plain[:21])
    assert (results[cache][21:] != plain[21:]).any(), cache
  err = capsys.readouterr().err
  assert f'from 1.3125 s: {SECOND}' in err and 'prompt changes took' in err
  # One layer: its keys come before the text, so all are alike but 'none'.
  np.testing.assert_array_equal(results['recache'], results['keep'])
  assert (results['none'] != results['keep']).any()


@pytest.mark.parametrize('cache', ['recache', 'upstream'])
def test_no_change_waits_for_a_compiler(make, tmp_path, cache, compilations):
  script = _script(tmp_path, (0, FIRST), (1.0, SECOND))
  change = Switching(cache=cache, script=script)
  config = make(prompt='', switch=change)
  playback = player.prepare(config, generate.check(config))
  next(playback.frames)
  compiled = compilations()
  assert sum(piece.shape[1] for piece in playback.frames) >= 20
  assert not compiled


def test_the_schedule_begins_again_with_a_new_prompt(make, tmp_path):
  script = _script(tmp_path, (0, FIRST), (1.0, SECOND), (2.0, FIRST))
  change = Switching(script=script)
  again = dataclasses.replace(change, again=True)
  told = {'prompt': '', 'commit': 'last', 'seconds': 4.0, 'window': 9}
  whole = _run(make(schedule='321', switch=again, **told))
  # The third chunk and the fourth are the first ones with new prompts; the
  # second change finds the third as it was kept, after 3 ticks.
  same = _run(make('b', schedule='323321', switch=change, **told))
  np.testing.assert_array_equal(whole, same)
  plain = _run(make('c', schedule='321', switch=change, **told))
  assert (whole[21:] != plain[21:]).any()
  state = str(tmp_path / 'a.state')
  short = told | {'seconds': 2.6}
  saving = Saving(save=state)
  first = make('d', schedule='321', switch=again, state=saving, **short)
  kept = len(_run(first))
  rest = make('e', schedule='321', state=Saving(resume=state), **told)
  np.testing.assert_array_equal(_run(rest), whole[kept:])


def test_what_is_typed_is_written_as_a_script(
  make, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(live, 'AHEAD', 1e9)
  monkeypatch.setattr(sys, 'stdin', io.StringIO(f'{SECOND}\n\n'))
  typed = make('typed', switch=Switching(live=True))
  first = _run(typed)
  out = capsys.readouterr().out
  script = pathlib.Path(typed.output).with_suffix('.script.jsonl')
  assert f'script: {script}' in out
  again = make('again', prompt='', switch=Switching(script=str(script)))
  np.testing.assert_array_equal(first, _run(again))


class Slow:
  """A terminal at which somebody types between two chunks."""

  def __init__(self, *lines):
    self.left = list(lines)

  def lines(self):
    now, self.left = self.left[:1], self.left[1:]
    yield from now[0]


def test_prompts_between_chunks_are_in_copies_too(
  make, tmp_path, capsys, monkeypatch
):
  state = tmp_path / 'a.state'
  typed = Slow((), (SECOND, f'/save {state}'), ('/quit',))
  monkeypatch.setattr(live, 'Typed', lambda: typed)
  monkeypatch.setattr(live, 'AHEAD', 1e9)
  config = make('typed', seconds=4.0, switch=Switching(live=True))
  first = _run(config)
  assert len(first) == 21  # What is started when somebody quits is left.
  rest = _run(make('rest', prompt='', state=Saving(resume=str(state))))
  script = pathlib.Path(config.output).with_suffix('.script.jsonl')
  cues = [json.loads(line) for line in script.read_text().splitlines()]
  assert [cue['prompt'] for cue in cues] == [FIRST, SECOND]
  again = make('again', prompt='', switch=Switching(script=str(script)))
  whole = _run(again)
  np.testing.assert_array_equal(first, whole[:21])
  np.testing.assert_array_equal(rest, whole[-len(rest) :])
  assert f'from {cues[1]["time"]:g} s: {SECOND}' in capsys.readouterr().err


@pytest.mark.parametrize('commit', ['clean', 'last'])
def test_save_kill_and_resume(make, tmp_path, commit):
  """A stream killed after a copy goes on with the very same frames."""
  script = _script(tmp_path, (0, FIRST), (1.5, SECOND))
  change = Switching(script=script)
  whole = _run(make(switch=change, prompt='', commit=commit))
  state = str(tmp_path / 'a.state')
  config = make(
    switch=change,
    prompt='',
    commit=commit,
    state=Saving(save=state, every=1e-6),
  )
  request = generate.check(config)
  frames = player.prepare(config, request).frames
  shown = [next(frames)[0] for _ in range(2)]  # The second is after a copy.
  frames.close()  # Killed: what came after the copy is lost.
  kept = state_file.load(state).more['shown']
  assert kept == len(shown[0])
  rest = _run(make('b', prompt='', commit=commit, state=Saving(resume=state)))
  np.testing.assert_array_equal(rest, whole[kept:])


RUN = """
import pickle, sys
import jax
jax.config.update('jax_default_matmul_precision', 'highest')
from jaxvid.tasks import generate
with open(sys.argv[1], 'rb') as file:
  config = pickle.load(file)
generate.run(config)
"""


def test_a_killed_process_goes_on(make, tmp_path):
  """kill -9 in the middle: the last complete copy is there, and right."""
  state = tmp_path / 'a.state'
  config = make(seconds=600.0, state=Saving(save=str(state), every=1e-6))
  (tmp_path / 'config').write_bytes(pickle.dumps(config))
  process = subprocess.Popen(
    [sys.executable, '-c', RUN, str(tmp_path / 'config')],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while not state.exists() and process.poll() is None:
    time.sleep(0.01)
  process.kill()
  process.wait()
  shown = state_file.load(state).more['shown']
  seconds = shown / 16 + 1
  rest = _run(make('b', seconds=seconds, state=Saving(resume=str(state))))
  whole = _run(make('c', seconds=seconds))
  assert len(rest) == len(whole) - shown > 0
  np.testing.assert_array_equal(rest, whole[shown:])


def test_stopped_videos_are_saved_and_made_longer(make, tmp_path, capsys):
  """What Ctrl-C left and what follows is the video of one run."""
  whole = _run(make(seconds=3.0))
  state = str(tmp_path / 'a.state')
  config = make(seconds=2.0, state=Saving(save=state))
  request = generate.check(config)
  frames = player.prepare(config, request).frames
  first = next(frames)[0]
  os.kill(os.getpid(), signal.SIGINT)
  with pytest.raises(KeyboardInterrupt):
    next(frames)
  assert f'stream saved after {len(first) / 16:.1f} s' in (
    capsys.readouterr().err
  )
  # To the end, whose last chunk is longer than the video.
  config = make('b', seconds=2.0, state=Saving(save=state, resume=state))
  second = _run(config)
  third = _run(make('c', seconds=3.0, state=Saving(resume=state)))
  made = np.concatenate([first, second, third])
  np.testing.assert_array_equal(made, whole)
  with pytest.raises(UserError, match=r'holds 2\.0625 s of video already'):
    _run(make('d', seconds=1.0, state=Saving(resume=state)))


def test_resumed_pictures_and_new_prompts(make, tmp_path):
  """Streams from a picture, and another prompt when going on."""
  picture = tmp_path / 'p.png'
  from jaxvid.data import picture as pictures

  pictures.write_png(picture, np.full((16, 32, 3), 90, np.uint8))
  state = str(tmp_path / 'a.state')
  config = make(seconds=1.0, first_frame=str(picture), state=Saving(save=state))
  _run(config)
  more = make('b', prompt='', seconds=2.5, state=Saving(resume=state))
  other = dataclasses.replace(more, prompt=SECOND)
  a, b = _run(more), _run(other)
  assert a.shape == b.shape and (a != b).any()


@pytest.fixture
def saved(make, tmp_path):
  path = tmp_path / 'kept.state'
  _run(make(seconds=1.0, state=Saving(save=str(path))))
  return path


def test_streams_of_others_are_refused(make, saved, tmp_path):
  resume = Saving(resume=str(saved))
  with pytest.raises(UserError, match=r'memory\.window 3, not 6'):
    _run(make(state=resume, window=6))
  with pytest.raises(UserError, match='another stream: schedule'):
    _run(make(state=resume, schedule='2'))
  other = tmp_path / 'other'
  other.mkdir()
  folder = tiny_bundle.write(other)
  model = folder.parent / 'model' / 'params'
  _spoil(model)
  with pytest.raises(UserError, match='another model: its weights differ'):
    _run(make(state=resume, weights=str(folder)))


def _spoil(folder):
  """Other weights under the same name."""
  from jaxvid.storage import weights as storage

  head, params = storage.load(folder.parent)
  params = jax.tree.map(lambda x: x + 0.125, params)
  storage.save(folder.parent, params, head)


@pytest.mark.parametrize('fault', ['cut', 'flipped', 'other', 'empty'])
def test_damaged_files_are_one_line(make, saved, fault, tmp_path):
  data = bytearray(saved.read_bytes())
  if fault == 'cut':
    data = data[: len(data) // 2]
  elif fault == 'flipped':
    data[len(data) // 2] ^= 1
  elif fault == 'other':
    with open(saved, 'wb') as file:
      np.savez(file, head=np.frombuffer(b'{"format": "cake"}', np.uint8))
    data = saved.read_bytes()
  else:
    data = b''
  saved.write_bytes(data)
  with pytest.raises(UserError, match='no saved stream, or') as caught:
    _run(make(state=Saving(resume=str(saved))))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'settings, words',
  [
    ({'state': Saving(resume='nowhere.state')}, 'cannot read the stream'),
    ({'state': Saving(every=5.0)}, 'needs state.save'),
    (
      {'switch': Switching(live=True), 'schedule': 'teacher', 'commit': ''},
      'only streams',
    ),
    ({'switch': Switching(script='nowhere.jsonl')}, 'cannot read script'),
    (
      {'switch': Switching(again=True), 'schedule': 'magi'},
      'one chunk after the other',
    ),
  ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(
  make, settings, words
):
  with pytest.raises(UserError, match=words):
    generate.check(make(weights='', **settings))


def test_a_script_beyond_the_end_is_refused(make, tmp_path):
  script = _script(tmp_path, (0, FIRST), (9.0, SECOND))
  with pytest.raises(UserError, match='at 9 s is beyond the end'):
    generate.check(make(switch=Switching(script=script)))


def test_sessions_are_steered_from_python(make):
  """The API: frames, another prompt, a copy, all at any moment."""
  config = make()
  request = generate.check(config)
  model, encode = live.load(config, request)
  state = stream.init(
    model.settings, model.params, model.text, model.key, model.negative
  )
  parts = model.settings, model.params, model.decoder
  session = Session(*parts, state, stop=4)
  frames = [next(session)]
  copy = session.snapshot()
  text = stream.encode_prompt(
    model.settings, model.params, encode(SECOND), model.negative
  )
  assert session.switch(text) == session.chunk
  frames += list(session)
  assert [f.shape[1] for f in frames] == [9, 12, 12, 12]
  assert [change.chunk for change in session.changes] == [1]
  again = Session.resume(*parts, copy, stop=4)
  again.switch(text)
  for a, b in zip(again, frames[1:], strict=True):
    np.testing.assert_array_equal(a, b)
