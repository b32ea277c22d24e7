"""Which scorers read a video: light, from local weights, or the user's own."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxvid.data import plugins
from jaxvid.errors import UserError
from jaxvid.evaluation import curves, segment
from jaxvid.evaluation.curves import Scorers

AUTO, LIGHT = 'auto', 'light'
FIELDS = ('clarity', 'aesthetic', 'subject', 'background', 'misfit')


@dataclasses.dataclass(frozen=True)
class ScorerConfig:
  """The choice for every metric.

  `auto` takes the learned scorer whose weights are there and else the light
  one, `light` the light one; anything else is `module:function` of your own.
  It gets a list of frames uint8 `[H, W, 3]` and returns one number, or one
  embedding, per frame; `misfit` gets three frames and returns a number.

  Attributes:
    weights: folder of learned weights, see docs/lv_bench.md; empty: none.
    clarity: quality of a frame. Learned: MUSIQ (SPAQ).
    aesthetic: of a frame. Learned: the LAION head on CLIP ViT-L/14.
    subject: embedding of a frame or a cut-out subject. Learned: DINO ViT-B/16.
    background: embedding of a frame. Learned: CLIP ViT-B/32.
    misfit: of a frame with its two neighbours, 0..255; light or your own.
    segmenter: where the subject is: centre (a guess), shapes (for the
      shapes world), none (everywhere) or your own.
    still: background that moves less than this share of the picture's short
      side per frame is static.
  """

  weights: str = ''
  clarity: str = AUTO
  aesthetic: str = AUTO
  subject: str = AUTO
  background: str = AUTO
  misfit: str = AUTO
  segmenter: str = 'centre'
  still: float = 1 / 480

  def __post_init__(self):
    if self.still < 0:
      raise UserError(f'still must be >= 0, not {self.still:g}')


@functools.lru_cache(maxsize=2)
def make(
  config: ScorerConfig,
  read_tensors: Callable[[pathlib.Path], Mapping[str, Any]] | None = None,
) -> Scorers:
  """The scorers of a config; learned weights are read once per process.

  Args:
    config: the choice.
    read_tensors: reads a file of weights; none: no learned scorers.

  Raises:
    UserError: a name or a weight file that is not what it should be.
  """
  light = curves.light(segment.load(config.segmenter))
  learned: dict[str, Callable[..., Any]] = {}
  if config.weights and read_tensors:
    from jaxvid.evaluation import learned as learned_lib  # Needs jax.

    learned = learned_lib.find(config.weights, read_tensors)
  chosen, names = {}, {'segmenter': config.segmenter}
  for field in FIELDS:
    spec = getattr(config, field)
    if spec == AUTO and field in learned:
      chosen[field], names[field] = learned[field], learned[field].__name__
    elif spec in (AUTO, LIGHT):
      chosen[field], names[field] = getattr(light, field), LIGHT
    else:
      chosen[field] = plugins.load(spec, {}, field)
      names[field] = spec
  return dataclasses.replace(light, **chosen, still=config.still, names=names)
