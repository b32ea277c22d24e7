"""Programs kept on disk: the same stream, and a way round every bad file."""

import dataclasses

import jax
import numpy as np
import pytest
from test_fast import ONE, _settings, _start

from jaxvid.stream import stream
from jaxvid.tasks import startup

pytest.importorskip('flatbuffers')


def _clip(settings, folder, chunks=3):
  params, state = _start(settings)
  ticks = stream.chunk_ticks(settings.schedule, 0)
  step = startup.ahead(settings, params, state, [ticks], folder)
  clip = []
  for _ in range(chunks):
    before = state.memory.k[0]
    state, x0 = step(params, state, ticks)
    assert before.is_deleted()
    clip.append(np.asarray(x0))
  return np.concatenate(clip, 1)


@pytest.mark.parametrize('deferred', [False, True])
def test_an_exported_stream_is_the_stream(tmp_path, capsys, deferred):
  settings = _settings(ONE, layers=1, fused=True, deferred=deferred)
  params, state = _start(settings)
  ticks = stream.chunk_ticks(settings.schedule, 0)
  expected = []
  for _ in range(3):
    state, x0 = stream.jitted_step(settings)(params, state, ticks)
    expected.append(np.asarray(x0))
  made = _clip(settings, tmp_path)
  files = sorted((tmp_path / 'streams').iterdir())
  assert len(files) == 1 + deferred
  times = [file.stat().st_mtime_ns for file in files]
  read = _clip(settings, tmp_path)
  assert times == [file.stat().st_mtime_ns for file in files]
  np.testing.assert_allclose(made, np.concatenate(expected, 1), atol=1e-6)
  np.testing.assert_array_equal(read, made)
  assert not capsys.readouterr().err


def test_what_cannot_be_used_costs_one_line(tmp_path, capsys, monkeypatch):
  settings = _settings(ONE, layers=1, fused=True)
  expected = _clip(settings, tmp_path, 1)
  (file,) = (tmp_path / 'streams').iterdir()
  whole = file.read_bytes()
  for data in (whole[: len(whole) // 2], b'', whole[:2000] + b'x' * 500):
    file.write_bytes(data)
    np.testing.assert_allclose(
      _clip(settings, tmp_path, 1), expected, atol=1e-6
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert 'compiling without an exported stream' in line
  file.write_bytes(whole)
  # Another version of jax looks for another file.
  monkeypatch.setattr(jax, '__version__', '0.0.1')
  other = dataclasses.replace(settings)
  _clip(other, tmp_path, 1)
  assert len(list((tmp_path / 'streams').iterdir())) == 2
