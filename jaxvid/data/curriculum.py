"""Batches of several sizes and lengths, stage after stage of a training.

A batch has one size and one length, since a program is compiled for it; which
ones it has is drawn anew for every step, from the step's number alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
  """Clips of one size.

  Attributes:
    latents: folder of cached latents (`configs/shapes/latents.py`).
    frames: lengths in latent frames, drawn evenly.
    batch: clips per step.
    weight: how often this source is drawn, against the others of its stage.
  """

  latents: str
  frames: tuple[int, ...] = (21,)
  batch: int = 16
  weight: float = 1.0

  def __post_init__(self):
    if not self.frames or min(self.frames) < 2:
      raise UserError(
        f'frames={self.frames}: a clip has a first frame and at least one more'
      )
    if self.batch < 1 or self.weight <= 0:
      raise UserError(
        f'{self.latents}: batch must be >= 1 and weight > 0, not '
        f'{self.batch} and {self.weight}'
      )


@dataclasses.dataclass(frozen=True)
class Stage:
  """Some steps of a training.

  Attributes:
    sources: what is mixed.
    steps: how many steps; 0 = to the end.
  """

  sources: tuple[Source, ...]
  steps: int = 0

  def __post_init__(self):
    if not self.sources or self.steps < 0:
      raise UserError('a stage needs sources, and steps >= 0')


class Batches(Protocol):
  """An endless, resumable iterator."""

  def __next__(self) -> Mapping[str, np.ndarray]: ...

  def get_state(self) -> dict[str, Any]: ...


# (source, length in latent frames, seed, state or None) -> its batches.
Open = Callable[[Source, int, int, Any], Batches]


def check(stages: Sequence[Stage]) -> None:
  """UserError unless every stage but the last ends."""
  if not stages:
    raise UserError('data.stages is empty: nothing to learn from')
  if not all(stage.steps for stage in stages[:-1]):
    raise UserError('only the last stage may have steps=0, which never ends')


class Curriculum:
  """Resumable iterator over the stages; the last one never ends."""

  def __init__(
    self,
    stages: Sequence[Stage],
    open_source: Open,
    seed: int,
    state: Mapping[str, Any] | None = None,
  ):
    check(stages)
    self._stages, self._open, self._seed = stages, open_source, seed
    self._step = 0 if state is None else state['step']
    self._kept = dict(state['parts']) if state else {}
    self._parts: dict[str, Batches] = {}

  def __iter__(self):
    return self

  def __next__(self) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng((self._seed, self._step))
    number = self._stage()
    sources = self._stages[number].sources
    weights = np.array([source.weight for source in sources])
    which = int(rng.choice(len(sources), p=weights / weights.sum()))
    frames = int(rng.choice(sources[which].frames))
    self._step += 1
    return next(self._part(f'{number}/{which}/{frames}'))

  def get_state(self) -> dict[str, Any]:
    """Where it is; JSON."""
    now = {name: part.get_state() for name, part in self._parts.items()}
    return {'step': self._step, 'parts': {**self._kept, **now}}

  def _stage(self) -> int:
    end = 0
    for number, stage in enumerate(self._stages[:-1]):
      end += stage.steps
      if self._step < end:
        return number
    return len(self._stages) - 1

  def _part(self, name: str) -> Batches:
    """The batches of one source and length; opened when first asked for."""
    if name not in self._parts:
      number, which, frames = map(int, name.split('/'))
      source = self._stages[number].sources[which]
      # Parts must not see the same clips in the same order.
      seed = int(
        np.random.SeedSequence((self._seed, *map(ord, name))).generate_state(1)[
          0
        ]
        // 2
      )
      state = self._kept.pop(name, None)
      self._parts[name] = self._open(source, frames, seed, state)
    return self._parts[name]
