"""What a run tells: progress with ETA, TensorBoard scalars and videos."""

import contextlib
import datetime
import io
import pathlib
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

Update = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def progress(start: int, total: int) -> Iterator[Update]:
  """Yields `update(step, metrics)`: a bar on a terminal, else plain lines.

  Args:
    start: number of steps finished before this run.
    total: number of steps of the whole training.
  """
  seen = [(start, time.monotonic())]

  def describe(step: int, metrics: Mapping[str, float]) -> str:
    seen.append((step, time.monotonic()))
    if len(seen) > 2 and seen[0][0] == start:
      del seen[0]  # from there on the time holds the compilation
    before, then = seen[-10:][0]
    rate = (step - before) / max(seen[-1][1] - then, 1e-9)
    left = datetime.timedelta(seconds=int((total - step) / rate))
    shown = '  '.join(f'{name} {value:.4g}' for name, value in metrics.items())
    return f'{shown}  {rate:.3g} steps/s  ETA {left}'

  if not sys.stderr.isatty():

    def line(step: int, metrics: Mapping[str, float]) -> None:
      text = f'step {step}/{total}  {describe(step, metrics)}'
      print(text, file=sys.stderr, flush=True)

    yield line
    return

  from rich import console
  from rich import progress as bars

  columns = (
    bars.BarColumn(bar_width=20),
    bars.MofNCompleteColumn(),
    bars.TextColumn('{task.description}'),
  )
  with bars.Progress(*columns, console=console.Console(stderr=True)) as bar:
    row = bar.add_task('compiling', total=total, completed=start)

    def draw(step: int, metrics: Mapping[str, float]) -> None:
      bar.update(row, completed=step, description=describe(step, metrics))

    yield draw


class Summaries:
  """TensorBoard event files of a run, below `workdir/tensorboard`."""

  def __init__(self, workdir: str | pathlib.Path, start: int, fps: int = 16):
    from tensorboardX import SummaryWriter

    # A resumed run hides what a killed one wrote after its last checkpoint.
    folder = str(pathlib.Path(workdir) / 'tensorboard')
    self._writer = SummaryWriter(
      folder, purge_step=start + 1 if start else None
    )
    self._fps = fps

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)
    self._writer.flush()

  def videos(self, step: int, videos: Mapping[str, np.ndarray]) -> None:
    """Shows uint8 videos [N, F, H, W, 3] side by side as animated images."""
    from tensorboardX.proto.summary_pb2 import Summary

    for name, video in videos.items():
      count, frames, height, width, _ = video.shape
      row = np.moveaxis(video, 0, 2).reshape(frames, height, count * width, 3)
      image = Summary.Image(
        height=height,
        width=count * width,
        colorspace=3,
        encoded_image_string=_gif(row, self._fps),
      )
      summary = Summary(value=[Summary.Value(tag=name, image=image)])
      self._writer.file_writer.add_summary(summary, step)
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def read_scalars(
  workdir: str | pathlib.Path,
) -> dict[str, list[tuple[int, float]]]:
  """The scalars of a run as TensorBoard shows them: name -> (step, value).

  A run that was resumed is one curve; the cut end of a killed run's last file
  is left out. Empty if there is nothing to read.
  """
  from tensorboardX.proto.event_pb2 import Event, SessionLog

  found: dict[str, dict[int, float]] = {}
  folder = pathlib.Path(workdir) / 'tensorboard'
  for file in sorted(folder.glob('events.out.tfevents.*')):
    for record in _records(file.read_bytes()):
      event = Event.FromString(record)
      if event.session_log.status == SessionLog.START:  # type: ignore
        for points in found.values():
          for step in [step for step in points if step >= event.step]:
            del points[step]
      for value in event.summary.value:
        if value.WhichOneof('value') == 'simple_value':
          found.setdefault(value.tag, {})[event.step] = value.simple_value
  return {name: sorted(points.items()) for name, points in found.items()}


def _records(data: bytes) -> Iterator[bytes]:
  """Whole records of a TFRecord file: length, its CRC, data, its CRC."""
  at = 0
  while at + 12 <= len(data):
    (length,) = struct.unpack_from('<Q', data, at)
    record = data[at + 12 : at + 12 + length]
    at += length + 16
    if at <= len(data):
      yield record


def _gif(frames: np.ndarray, fps: int) -> bytes:
  """uint8 frames [F, H, W, 3] as an animated GIF."""
  from PIL import Image

  images = [Image.fromarray(frame) for frame in np.asarray(frames)]
  buffer = io.BytesIO()
  images[0].save(
    buffer,
    'gif',
    save_all=True,
    append_images=images[1:],
    duration=round(1000 / fps),
    loop=0,
  )
  return buffer.getvalue()
