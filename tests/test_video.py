"""Video and picture files: round trips, interruptions, full disks."""

import signal
import struct
import sys
import textwrap
import time

import av
import numpy as np
import processes
import pytest

from jaxvid.data import files, picture, video
from jaxvid.errors import UserError


def clip(num_frames, height, width):
  """Smooth colour ramps; blue tells the time."""
  y, x = np.mgrid[:height, :width]
  red, green = x * 255 // width, y * 255 // height
  frames = [
    np.stack([red, green, np.full_like(x, 255 * t // num_frames)], -1)
    for t in range(num_frames)
  ]
  return np.stack(frames).astype(np.uint8)


def save(path, frames, batch=12, **settings):
  with video.writer(path, **settings) as write:
    for i in range(0, len(frames), batch):
      write(frames[i : i + batch])


def test_round_trip_and_player_friendly(tmp_path):
  frames = clip(33, 64, 64)
  path = tmp_path / 'new' / 'a.mp4'
  save(path, frames, upscale=2)
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    assert (stream.width, stream.height) == (128, 128)
    assert stream.codec_context.name == 'h264'
    assert stream.pix_fmt == 'yuv420p'
    assert stream.average_rate == 16 and stream.frames == 33
    assert float(stream.duration * stream.time_base) == 33 / 16
  back = video.read_video(path, 64, 64)
  error = np.abs(back.astype(int) - frames)
  assert back.shape == frames.shape and back.dtype == np.uint8
  assert error.mean() < 4 and error.max() < 24
  assert list(path.parent.iterdir()) == [path]


def test_odd_sizes_are_padded_not_cropped(tmp_path):
  path = tmp_path / 'odd.mp4'
  frames = clip(4, 35, 51)
  save(path, frames)
  back = video.read_video(path, 36, 52)
  error = np.abs(back[:, :35, :51].astype(int) - frames)
  assert error.mean() < 4
  assert np.abs(back[:, :, 51].astype(int) - back[:, :, 50]).mean() < 4


def test_frame_rates_crops_and_tails(tmp_path):
  path = tmp_path / 'a.mp4'
  frames = clip(32, 32, 64)
  save(path, frames)
  half = video.read_video(path, 32, 64, fps=8)
  assert half.shape == (16, 32, 64, 3)
  assert np.abs(half.astype(int) - frames[::2]).mean() < 4
  double = video.read_video(path, 32, 64, fps=32)
  assert np.abs(double.astype(int) - frames.repeat(2, 0)).mean() < 4
  tail = video.read_video(path, 32, 64, last=5)
  assert np.abs(tail.astype(int) - frames[-5:]).mean() < 4
  # A square cut from the middle of a wide picture: red starts at a quarter.
  square = video.read_video(path, 32, 32, last=1)[0]
  assert np.abs(square.astype(int) - frames[-1, :, 16:48]).mean() < 4


def test_rotated_recordings_are_read_upright(tmp_path):
  """Phones write sideways pictures and a rotation beside them."""
  path = tmp_path / 'a.mp4'
  frames = clip(3, 32, 64)
  save(path, frames)
  data = bytearray(path.read_bytes())
  plain = struct.pack('>9i', 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
  turned = struct.pack(
    '>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30
  )
  header = data.rindex(b'tkhd')
  start = data.index(plain, header)
  data[start : start + 36] = turned
  path.write_bytes(data)
  upright = video.read_video(path, 64, 32)[0]
  # (a b c d) = (0 1 -1 0): the player turns the picture clockwise.
  expected = np.rot90(frames[0], -1)
  assert np.abs(upright.astype(int) - expected).mean() < 6


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_text('old')
  with pytest.raises(ZeroDivisionError), video.writer(path) as write:
    write(clip(4, 16, 16))
    raise ZeroDivisionError
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_interrupt_keeps_what_was_written(tmp_path):
  path = tmp_path / 'a.mp4'
  with pytest.raises(KeyboardInterrupt), video.writer(path) as write:
    write(clip(20, 16, 16))
    raise KeyboardInterrupt
  assert len(video.read_video(path, 16, 16)) == 20
  with pytest.raises(KeyboardInterrupt), video.writer(tmp_path / 'b.mp4'):
    raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == [path]


SCRIPT = """
  import signal, sys, time
  import numpy as np
  from jaxvid.data import video
  noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
  with video.writer(sys.argv[1]) as write:
    for i in range(10**6):
      write(noise)
      print(i, flush=True)
"""


def script(path, *prefix):
  code = textwrap.dedent(SCRIPT)
  python = [sys.executable, '-W', 'error', '-c', code, str(path)]
  return processes.started([*prefix, *python])


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGKILL])
def test_signals_in_the_middle_leave_a_file_that_plays(tmp_path, sent):
  path = tmp_path / 'a.mp4'
  with script(path) as process:
    for line in process.stdout:
      if int(line) >= 20:
        break
    time.sleep(0.05)
    process.send_signal(sent)
    process.communicate(timeout=60)
  # Killed outright: the unfinished file stays, named with a dot.
  (found,) = tmp_path.iterdir()
  assert (found == path) == (sent == signal.SIGINT)
  frames = video.read_video(found, 64, 64)
  assert len(frames) >= (160 if sent == signal.SIGINT else 16)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  """A file-size limit acts like a disk that fills up."""
  path = tmp_path / 'a.mp4'
  limit = ['sh', '-c', 'ulimit -f 200; exec "$@"', 'sh']
  with script(path, *limit) as process:
    errors = process.communicate(timeout=60)[1].strip().splitlines()
  assert process.returncode == 1
  assert errors[-1].startswith(f'jaxvid.errors.UserError: cannot write {path}:')
  assert not any('Exception ignored' in line for line in errors)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('name', 'reason'),
  [
    ('file/a.mp4', 'is not a folder'),
    ('folder', 'not a regular file'),
    ('x' * 300 + '.mp4', 'name too long'),
  ],
)
def test_unwritable_output_is_one_line(tmp_path, name, reason):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  for check in (files.check_writable, lambda p: save(p, clip(1, 8, 8))):
    with pytest.raises(UserError, match=reason):
      check(tmp_path / name)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['file', 'folder']


def test_devices_are_no_output():
  with pytest.raises(UserError, match='not a regular file'):
    files.check_writable('/dev/full')


@pytest.mark.parametrize('content', [b'', b'not a video', b'\0' * 5000])
def test_broken_input_is_one_line(tmp_path, content):
  path = tmp_path / 'a.mp4'
  path.write_bytes(content)
  for read in (video.read_video, video.read_image):
    with pytest.raises(UserError, match='cannot read') as error:
      read(path, 16, 16)
    assert '\n' not in str(error.value)


def test_cut_and_missing_input_is_one_line(tmp_path):
  path = tmp_path / 'a.mp4'
  save(path, clip(20, 16, 16))
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(UserError, match='cannot read'):
    video.read_video(path, 16, 16)
  with pytest.raises(UserError, match='No such file'):
    video.read_video(tmp_path / 'none.mp4', 16, 16)
  with pytest.raises(UserError, match='Is a directory'):
    video.read_image(tmp_path, 16, 16)


def test_a_playlist_does_not_open_other_files(tmp_path):
  save(tmp_path / 'a.mp4', clip(20, 16, 16))
  path = tmp_path / 'list.m3u8'
  path.write_text(
    '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n'
    f'{tmp_path / "a.mp4"}\n#EXT-X-ENDLIST\n'
  )
  with pytest.raises(UserError, match='cannot read'):
    video.read_video(path, 16, 16)


def test_contact_sheet_png_is_exact(tmp_path):
  frames = clip(81, 20, 30)
  indices = picture.sheet_indices(81)
  assert len(indices) == 12 and indices[0] == 0 and indices[-1] == 80
  assert picture.sheet_indices(3) == (0, 1, 2)
  sheet = picture.contact_sheet(frames[list(indices)], columns=4, upscale=2)
  assert sheet.shape == (3 * 44 + 4, 4 * 64 + 4, 3)
  path = tmp_path / 'a.png'
  picture.write_png(path, sheet)
  back = video.read_image(path, *sheet.shape[:2])
  np.testing.assert_array_equal(back, sheet)
  np.testing.assert_array_equal(back[4:44:2, 4:64:2], frames[0])
