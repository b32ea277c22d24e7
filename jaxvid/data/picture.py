"""PNG files and contact sheets: a whole video at a glance."""

import os
from collections.abc import Sequence

import numpy as np

from jaxvid.data import files

GAP = 4  # pixels between the pictures of a sheet


def sheet_indices(num_frames: int, count: int = 12) -> tuple[int, ...]:
  """Evenly spaced frames of a video, first and last among them."""
  spaced = np.linspace(0, num_frames - 1, min(count, num_frames))
  return tuple(int(i) for i in spaced.round())


def contact_sheet(
  frames: Sequence[np.ndarray], columns: int = 4, upscale: int = 1
) -> np.ndarray:
  """Puts frames, each uint8 [H, W, 3], into a grid, row by row.

  Args:
    frames: at least one frame; all of one size.
    columns: frames per row.
    upscale: every pixel becomes a square of this size.

  Returns:
    uint8 picture; white between and around the frames.
  """
  columns = min(columns, len(frames))
  rows = -(-len(frames) // columns)
  height, width = (upscale * size for size in frames[0].shape[:2])
  sheet = np.full(
    (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3),
    255,
    np.uint8,
  )
  for i, frame in enumerate(frames):
    top = GAP + i // columns * (height + GAP)
    left = GAP + i % columns * (width + GAP)
    image = frame.repeat(upscale, 0).repeat(upscale, 1)
    sheet[top : top + height, left : left + width] = image
  return sheet


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes a picture, uint8 [H, W, 3]; UserError if the disk says no."""
  import av

  codec = av.CodecContext.create('png', 'w')
  codec.height, codec.width = image.shape[:2]
  codec.pix_fmt, codec.time_base = 'rgb24', 1
  frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
  packets = [*codec.encode(frame), *codec.encode()]
  with files.replacing(path) as file, files.naming(path):
    file.write(b''.join(bytes(packet) for packet in packets))
