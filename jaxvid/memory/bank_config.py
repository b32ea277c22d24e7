"""Settings of a bank of past chunks."""

import dataclasses
from typing import Literal

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class BankConfig:
  """What is kept of past chunks, and which of them are seen again.

  The window of the memory says which recent chunks are always seen, its sink
  which first ones; both in whole chunks. Recent chunks, too, are seen through
  the bank, as algorithm 1 of BlockVid does: sparse unless `tau` is 1.

  Attributes:
    retrieved: further chunks l that are seen (*paper*: 2).
    retrieval: 'semantic' takes those whose prompts are most like the current
      one; 'recent' those that came last (BlockVid, table 5: with tau below 1
      a dynamic sparse cache, else a rolling one).
    alike: which of two chunks with equal prompts is retrieved and, where
      `evict` must choose between them, kept: the 'later' or the 'earlier',
      which shows a scene as it was first seen. The paper does not say.
    capacity: chunks held.
    evict: what goes when a semantic bank is full: 'dissimilar' the chunk least
      like the recent prompts, 'redundant' one whose prompt is most like that
      of another, so that every scene keeps a chunk; of others the oldest goes.
    tau: share of the importance that kept tokens cover (*paper*: 0.98); 1
      keeps all.
    room: tokens that an entry has room for, as a share of its chunk's.
    recent_probes: probe queries at the chunk's end (*paper*: 64).
    random_probes: probe queries before them (*paper*: 64).
    causal: probes see no later token (algorithm 2); False: all of their chunk
      (the mask of equation 4).
    cumulative: importance is the mean over all tokens so far (algorithm 2).
    share_layers: one selection for all layers; the paper does not say.
    literal: recent chunks are c-2 and c-3, as algorithm 1 prints, and c-1 is
      retrieved like any other; else they are c-1 and c-2.
    drop: probability that a token of the merged cache is left out; the paper
      names it and gives no value.
    seed: of random probes and dropped tokens.
  """

  retrieved: int = 2
  retrieval: Literal['semantic', 'recent'] = 'semantic'
  alike: Literal['later', 'earlier'] = 'later'
  capacity: int = 16
  evict: Literal['dissimilar', 'redundant'] = 'dissimilar'
  tau: float = 0.98
  room: float = 1.0
  recent_probes: int = 64
  random_probes: int = 64
  causal: bool = True
  cumulative: bool = True
  share_layers: bool = False
  literal: bool = False
  drop: float = 0.0
  seed: int = 0

  def __post_init__(self):
    for name, allowed in (
      ('retrieval', ('semantic', 'recent')),
      ('alike', ('later', 'earlier')),
      ('evict', ('dissimilar', 'redundant')),
    ):
      if getattr(self, name) not in allowed:
        raise UserError(
          f'bank: {name} must be {" or ".join(map(repr, allowed))}, not '
          f'{getattr(self, name)!r}'
        )
    for name in ('tau', 'room'):
      if not 0 < getattr(self, name) <= 1:
        value = getattr(self, name)
        raise UserError(f'bank: {name} must be in (0, 1], not {value:g}')
    if not 0 <= self.drop < 1:
      raise UserError(f'bank: drop must be in [0, 1), not {self.drop:g}')
    if self.retrieved < 0 or self.random_probes < 0 or self.recent_probes < 0:
      raise UserError(
        'bank: retrieved, recent_probes and random_probes must be >= 0'
      )
    if not self.recent_probes + self.random_probes:
      raise UserError('bank: no probes; recent_probes or random_probes > 0')

  @property
  def lag(self) -> int:
    """Distance of the newest recent chunk from the current one."""
    return 2 if self.literal else 1

  def check(self, chunk: int, sink: int, window: int, spare: int) -> None:
    """UserError if the memory around the bank does not suit it.

    Args:
      chunk: latent frames per chunk.
      sink: first latent frames, always seen.
      window: latent frames of the window, the current chunk included.
      spare: further ring slots.
    """
    for name, value in (('sink', sink), ('window', window)):
      if value % chunk:
        near = max(chunk, round(value / chunk) * chunk)
        raise UserError(
          f'a bank keeps whole chunks: {name} must be a multiple of {chunk}, '
          f'not {value} (nearest: {near})'
        )
    if spare:
      raise UserError('a bank needs no spare slots')
    least = (sink + window) // chunk + self.lag - 1
    if self.capacity < least:
      raise UserError(
        f'bank: capacity must be at least {least} chunks (sink, recent ones '
        f'and the newest), not {self.capacity}'
      )
