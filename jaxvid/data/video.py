"""Video files in and out: H.264 mp4 while frames arrive, any format back.

Frames are uint8 [F, H, W, 3] here and nowhere else in the library.
"""

import collections
import concurrent.futures
import contextlib
import fractions
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError

FPS = 16
# Left alone, the encoder takes another number on a busy machine, and another
# number makes other bits: a seed must give the same file.
THREADS = 4
# A playlist or the like must not make FFmpeg open other files or addresses.
_ALONE = {'protocol_whitelist': 'none'}
Write = Callable[[np.ndarray], None]


@contextlib.contextmanager
def writer(
  path: str | os.PathLike, fps: int = FPS, upscale: int = 1
) -> Iterator[Write]:
  """Opens an mp4 for writing; yields `write(frames)`, uint8 [n, H, W, 3].

  Frames are encoded in a thread beside the caller. The file appears at
  `path` when the block ends, also when Ctrl-C ends it: then it holds the
  frames written so far. Any other exception leaves no file. Even a killed
  process leaves a hidden file that plays, since it is written in fragments.

  Args:
    path: target; missing folders are made.
    fps: frames per second.
    upscale: every pixel becomes a square of this size.

  Raises:
    UserError: the file cannot be written, or the disk is full.
  """
  with (
    files.replacing(path, keep=(KeyboardInterrupt,)) as file,
    concurrent.futures.ThreadPoolExecutor(1) as pool,
  ):
    encoder = _Encoder(file, fps, upscale)
    pending: collections.deque[concurrent.futures.Future] = collections.deque()

    def submit(task: Callable, *args, waiting: int = 0) -> None:
      # A thread, so that no signal ever interrupts half a packet.
      pending.append(pool.submit(task, *args))
      with files.naming(path):
        while len(pending) > waiting:
          pending.popleft().result()

    try:
      yield lambda frames: submit(encoder.write, frames, waiting=1)
    except KeyboardInterrupt:
      submit(encoder.close)
      raise
    except BaseException:
      with contextlib.suppress(Exception):
        submit(encoder.close)
      raise
    submit(encoder.close)


class _Encoder:
  """An H.264 stream in a fragmented mp4 that ends as an ordinary one."""

  def __init__(self, file, fps: int, upscale: int):
    self._file = file
    self._fps = fps
    self._upscale = upscale
    # PyAV objects once the size is known.
    self._container: Any = None
    self._stream: Any = None

  def write(self, frames: np.ndarray) -> None:
    """Encodes uint8 frames [n, H, W, 3]."""
    import av

    for image in frames:
      image = _even(np.ascontiguousarray(image), self._upscale)
      stream = self._stream or self._open(image.shape[1], image.shape[0])
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      frame = frame.reformat(
        format='yuv420p', src_colorspace='DEFAULT', dst_colorspace='ITU709'
      )
      for packet in stream.encode(frame):
        self._container.mux(packet)

  def _open(self, width: int, height: int):
    import av

    self._container = av.open(
      self._file,
      'w',
      format='mp4',
      options={'movflags': 'hybrid_fragmented+default_base_moof'},
    )
    stream = self._container.add_stream('libx264', rate=self._fps)
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    # A key frame, and so a playable fragment, every second.
    stream.options = {'preset': 'veryfast', 'crf': '17', 'g': str(self._fps)}
    # Say which colours these are, or players guess by picture size.
    codec = stream.codec_context
    codec.thread_count = THREADS
    codec.colorspace = codec.color_primaries = codec.color_trc = 1  # BT.709
    codec.color_range = 1  # limited
    self._stream = stream
    return stream

  def close(self) -> None:
    """Flushes the encoder and writes the index."""
    if self._container is not None:
      for packet in self._stream.encode():
        self._container.mux(packet)
      self._container.close()
    self._file.flush()


def _even(image: np.ndarray, upscale: int) -> np.ndarray:
  """Nearest upscale, then the last row and column repeated to even sizes."""
  if upscale > 1:
    image = image.repeat(upscale, 0).repeat(upscale, 1)
  height, width = image.shape[:2]
  if height % 2 or width % 2:
    image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
  return image


def read_video(
  path: str | os.PathLike,
  height: int,
  width: int,
  fps: int = FPS,
  last: int = 0,
) -> np.ndarray:
  """Reads a video file at another size and frame rate.

  Args:
    path: any format that FFmpeg reads.
    height: rows wanted; the picture is scaled to cover, then centre-cropped.
    width: columns wanted.
    fps: frames per second wanted; the nearest earlier frame is taken.
    last: keep this many frames at the end; 0 keeps all.

  Returns:
    uint8 [F, height, width, 3], F >= 1.

  Raises:
    UserError: missing, unreadable or broken file, or no picture in it.
  """
  frames = collections.deque(iter_video(path, height, width, fps), last or None)
  return np.stack(frames)


def iter_video(
  path: str | os.PathLike, height: int, width: int, fps: int = FPS
) -> Iterator[np.ndarray]:
  """The frames of `read_video`, uint8 [height, width, 3], one at a time."""
  shown = 0
  pictures = resampled(path, fps, lambda frame: _cover(frame, height, width))
  for image, count in pictures:
    shown += count
    yield from [image] * count
  if not shown:
    raise UserError(f'cannot read {path}: it holds no picture')


def read_image(path: str | os.PathLike, height: int, width: int) -> np.ndarray:
  """Reads a picture, scaled to cover and centre-cropped: uint8 [H, W, 3]."""
  for frame in _decode(path):
    return _cover(frame, height, width)
  raise UserError(f'cannot read {path}: it holds no picture')


def native_frames(
  source: str | os.PathLike | BinaryIO,
) -> Iterator[np.ndarray]:
  """Every frame of a file in the size of the first, upright, one at a time.

  Args:
    source: a path, or an open file.

  Returns:
    uint8 [H, W, 3] each.

  Raises:
    UserError: missing, unreadable or broken file, or no picture in it.
  """
  size = None
  for frame in _decode(source):
    size = size or (frame.width, frame.height)
    image = frame.reformat(*size, 'rgb24').to_ndarray()
    turns = round(frame.rotation / 90) % 4
    yield np.ascontiguousarray(np.rot90(image, turns))
  if size is None:
    raise UserError(f'cannot read {source}: it holds no picture')


def resampled(
  path: str | os.PathLike,
  fps: int,
  picture: Callable[[Any], np.ndarray],
) -> Iterator[tuple[np.ndarray, int]]:
  """Pictures at a steady pace, and how many frames in a row show each.

  Args:
    path: any format that FFmpeg reads; frames may come at any pace.
    fps: frames per second wanted; the nearest earlier frame is taken.
    picture: turns a decoded frame, an `av.VideoFrame`, into an array; called
      for those that are shown.

  Raises:
    UserError: missing, unreadable or broken file, maybe after some pictures.
  """
  for frame, count in _resampled(path, fps):
    if count:
      yield picture(frame), count


@contextlib.contextmanager
def opened(source: str | os.PathLike | BinaryIO) -> Iterator[Any]:
  """An open container with pictures in it, for reading.

  Args:
    source: a path, or an open file.

  Raises:
    UserError: missing, unreadable or broken file, or no picture in it.
  """
  import av
  from av.error import FFmpegError

  given = isinstance(source, io.IOBase)
  path = 'video' if given else pathlib.Path(source)
  try:
    with (
      contextlib.nullcontext(source) if given else open(path, 'rb') as file,
      av.open(file, 'r', options=_ALONE) as container,
    ):
      if not container.streams.video:
        raise UserError(f'cannot read {path}: it holds no picture')
      yield container
  except OSError as error:
    reason = error.strerror or str(error)
    raise UserError(f'cannot read {path}: {reason}') from error
  except (FFmpegError, ValueError) as error:
    reason = 'it is broken, or no video or picture'
    raise UserError(f'cannot read {path}: {reason}') from error


def _resampled(path, fps: int) -> Iterator[tuple]:
  """Decoded frames and how many output frames show each."""
  shown = 0
  step = fractions.Fraction(1, fps)
  previous, start, length = None, None, step
  for number, frame in enumerate(_decode(path)):
    # Bare streams have no times: one frame wanted for each that there is.
    time = number * step
    if frame.pts is not None:
      time = frame.pts * fractions.Fraction(frame.time_base)
    start = time if start is None else start
    if previous is not None:
      # Output frame k shows the last input frame at or before k / fps.
      count = max(0, -(-(time - start) // step) - shown)
      yield previous, count
      shown += count
    if frame.duration and frame.time_base:
      length = frame.duration * fractions.Fraction(frame.time_base)
    previous, end = frame, time - (start or 0) + length
  if previous is not None:
    yield previous, max(1 if not shown else 0, round(end / step) - shown)


def _decode(source: str | os.PathLike | BinaryIO) -> Iterator:
  """Pictures of a file, in order; FFmpeg sees bytes, never the name."""
  with opened(source) as container:
    yield from container.decode(video=0)


def _cover(frame, height: int, width: int) -> np.ndarray:
  """Decoded frame -> uint8 [height, width, 3], upright, nothing squeezed."""
  turns = round(frame.rotation / 90) % 4
  rows, columns = (height, width) if turns % 2 == 0 else (width, height)
  scale = max(rows / frame.height, columns / frame.width)
  size = (
    max(columns, round(frame.width * scale)),
    max(rows, round(frame.height * scale)),
  )
  image = frame.reformat(*size, 'rgb24', interpolation='BICUBIC').to_ndarray()
  image = np.rot90(image, turns)
  top = (image.shape[0] - height) // 2
  left = (image.shape[1] - width) // 2
  return np.ascontiguousarray(image[top : top + height, left : left + width])
