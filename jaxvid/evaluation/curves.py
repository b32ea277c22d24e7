"""Scores of a video frame by frame, in one pass and little memory.

Everything that Video Drift Error needs of a chunk is a mean of these, so a
video is read once, whatever its length, and cut into chunks afterwards.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from jaxvid.data import flow, looks
from jaxvid.evaluation import drift, embeddings, segment

Images = Sequence[np.ndarray]  # uint8 [H, W, 3] each, of any sizes
Score = Callable[[Images], np.ndarray]  # -> [n]
Embed = Callable[[Images], np.ndarray]  # -> [n, E]

BATCH = 16  # frames scored together
FLOW_SIDE = 96  # short side that flow is computed at


@dataclasses.dataclass(frozen=True)
class Scorers:
  """What reads the frames; the defaults are light and learned nothing.

  Attributes:
    clarity: of a frame, for the form of the released benchmark.
    aesthetic: of a frame, 0..1.
    subject: embedding of a frame or of the subject cut from it.
    background: embedding of a frame.
    misfit: how far a frame is from what its two neighbours let expect, mean
      absolute difference in 0..255.
    segment: where the subject is.
    still: background pixels that move less than this count as static, as a
      share of the picture's short side per frame (equation 20's tau).
    names: metric -> name of its scorer, for reports.
  """

  clarity: Score
  aesthetic: Score
  subject: Embed
  background: Embed
  misfit: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
  segment: segment.Segmenter
  still: float = 1 / 480
  names: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Curves:
  """One row per frame; not a number where there is nothing to say.

  Attributes:
    clarity: `[F]`, of the chosen scorer.
    sharpness: `[F]`, variance of the Laplacian of luma (equation 16).
    aesthetic: `[F]`.
    misfit: `[F]`, mean absolute difference, 0..255, to what the frames before
      and after let expect.
    energy: `[F]`, mean length of the flow from the frame before, in pixels.
    static: `[F]`, share of the background that it leaves in place.
    subject: `[F, E]`, embeddings of whole frames.
    background: `[F, E]`, the same.
    crop: `[F, E]`, embeddings of the subject cut out.
  """

  clarity: np.ndarray
  sharpness: np.ndarray
  aesthetic: np.ndarray
  misfit: np.ndarray
  energy: np.ndarray
  static: np.ndarray
  subject: np.ndarray
  background: np.ndarray
  crop: np.ndarray

  def __len__(self) -> int:
    return len(self.clarity)


def unsteady(before: np.ndarray, frame: np.ndarray, after: np.ndarray) -> float:
  """The light misfit: the frame between two is taken to be their mean."""
  a, b, c = (
    looks.strided(x, 240).astype(np.float32) for x in (before, frame, after)
  )
  a += c
  a *= 0.5
  a -= b
  return float(np.abs(a, out=a).mean())


def light(segmenter: segment.Segmenter = segment.centre) -> Scorers:
  """Scorers that need no weights."""

  def embed(images: Images) -> np.ndarray:
    return np.array([embeddings.embed(image) for image in images])

  def sharp(images: Images) -> np.ndarray:
    return np.array([drift.sharpness(image[None])[0] for image in images])

  return Scorers(
    clarity=sharp,
    aesthetic=lambda images: np.array(
      [looks.appeal(image[None])[0] for image in images]
    ),
    subject=embed,
    background=embed,
    misfit=unsteady,
    segment=segmenter,
  )


def read(
  frames: Iterable[np.ndarray],
  scorers: Scorers,
  masks: Iterable[np.ndarray] | None = None,
) -> Curves:
  """Scores a video.

  Args:
    frames: uint8 `[H, W, 3]`, all of one size, one at a time.
    scorers: what reads them.
    masks: bool `[H, W]` of each frame, True on the subject; none: from the
      segmenter.
  """
  rows: dict[str, list] = {f.name: [] for f in dataclasses.fields(Curves)}
  tail: list[np.ndarray] = []  # the last two frames
  shade = None  # the last one's small luma
  given = None if masks is None else iter(masks)
  for batch in _batches(frames):
    if given is None:
      mask = scorers.segment(np.stack(batch))
    else:
      mask = np.stack(list(itertools.islice(given, len(batch)))).astype(bool)
    shades = _pixels(rows, batch, mask, scorers, shade)
    joined = tail + batch
    for before, frame, after in zip(
      joined, joined[1:], joined[2:], strict=False
    ):
      rows['misfit'].append(scorers.misfit(before, frame, after))
    tail, shade = joined[-2:], shades
    rows['clarity'].extend(_score(scorers.clarity, batch, rows, scorers))
    rows['aesthetic'].extend(scorers.aesthetic(batch))
    _embed(rows, batch, mask, scorers)
  # First and last frame have no two neighbours.
  count = len(rows['sharpness'])
  ends = [np.nan] * min(count, 1), [np.nan] * min(max(count - 1, 0), 1)
  rows['misfit'] = [*ends[0], *rows['misfit'], *ends[1]]
  return Curves(**{name: np.array(values) for name, values in rows.items()})


def _batches(frames: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
  iterator = iter(frames)
  while batch := list(itertools.islice(iterator, BATCH)):
    yield batch


def _score(score: Score, batch, rows, scorers: Scorers):
  """Clarity; the light scorer's values are there already."""
  if scorers.names.get('clarity', 'light') == 'light':
    return rows['sharpness'][-len(batch) :]
  return score(batch)


def _pixels(rows, batch, masks, scorers: Scorers, shade):
  """Sharpness and flow of a batch; returns the last frame's small luma."""
  for frame, mask in zip(batch, masks, strict=True):
    y = flow.luma(frame)
    rows['sharpness'].append(drift.laplacian_variance(y))
    small = flow.shrink(y, FLOW_SIDE)
    energy = static = np.nan
    if shade is not None and shade.shape == small.shape:
      scale = min(y.shape) / min(small.shape)
      moved = flow.magnitude(shade, small) * scale
      ground = ~_reduced(mask, small.shape)
      ground = ground if ground.any() else np.ones_like(ground)
      energy = float(moved.mean())
      static = float((moved[ground] <= scorers.still * min(y.shape)).mean())
    rows['energy'].append(energy)
    rows['static'].append(static)
    shade = small
  return shade


def _reduced(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """The mask at the nearest places of a smaller picture."""
  rows, columns = (
    ((np.arange(n) + 0.5) * full / n).astype(int)
    for n, full in zip(shape, mask.shape, strict=True)
  )
  return mask[rows][:, columns]


def _embed(rows, batch, masks, scorers: Scorers) -> None:
  subject = scorers.subject(batch)
  rows['subject'].extend(subject)
  same = scorers.background is scorers.subject
  rows['background'].extend(subject if same else scorers.background(batch))
  boxes = [_cut(frame, mask) for frame, mask in zip(batch, masks, strict=True)]
  seen = [box for box in boxes if box is not None]
  found = iter(scorers.subject(seen) if seen else ())
  nothing = np.full(subject.shape[1:], np.nan, np.float32)
  rows['crop'].extend(nothing if b is None else next(found) for b in boxes)


def _cut(frame: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
  """The smallest rectangle around the subject; None where there is none."""
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  if not len(rows):
    return None
  return frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
