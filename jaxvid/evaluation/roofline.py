"""How fast a stream could be: operations, bytes, and what a card does of them.

Two answers. The *limit* takes the highest rates a card was seen to sustain,
with perfect overlap: no program reaches it. The *prediction* takes the rates
that kernels reach at these shapes. Both are written down before a run, and a
report gives measurements beside them. Operations count a multiplication and an
addition as two. Text keys and values are computed once per prompt and are not
counted.
"""

import dataclasses
from typing import Literal, NamedTuple

from jaxvid.diffusion.schedule import Schedule
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import DiTConfig

Precision = Literal['bfloat16', 'fp8_linear', 'fp8']
# XLA's elementwise kernels of one layer at 4680 tokens of width 1536 move
# 451 MB, seen in the program compiled for an H200.
_ELEMENTWISE = 451e6 / (4680 * 1536)
# Operations of decoders per latent frame of 60 x 104, from their layers.
_DECODE = {'vae': 13.55e12, 'tae': 0.544e12}
_DECODE_SIZE = 60 * 104


@dataclasses.dataclass(frozen=True)
class Card:
  """A graphics card: highest rates, and those of kernels at our shapes.

  Attributes:
    name: as people say.
    datasheet: bfloat16 operations per second as sold.
    bf16: the same, sustained in a large product of matrices.
    fp8: sustained in 8 bits.
    fp8_attention: highest of attention in 8 bits, where exponentials limit.
    bandwidth: bytes per second, sustained.
    linear: predicted rate of the layers' matrices in bfloat16.
    linear_fp8: in 8 bits.
    attention: predicted rate of self-attention in bfloat16.
    attention_fp8: in 8 bits.
    cross: predicted rate of attention to the text.
    elementwise: predicted bytes per second of everything else.
    decode: predicted rate of each decoder.
  """

  name: str
  datasheet: float = 989.4e12
  bf16: float = 790e12
  fp8: float = 1450e12
  fp8_attention: float = 1000e12
  bandwidth: float = 4.3e12
  linear: float = 620e12
  linear_fp8: float = 1000e12
  attention: float = 600e12
  attention_fp8: float = 830e12
  cross: float = 450e12
  elementwise: float = 3.6e12
  decode: tuple[tuple[str, float], ...] = (('tae', 330e12), ('vae', 400e12))


H200 = Card('H200')
# The same chip beside slower memory.
H100 = Card('H100', bandwidth=2.9e12, elementwise=2.4e12)
CARDS = (H200, H100)


def card_of(device_kind: str) -> Card | None:
  """The card that jax calls `device_kind`, if its rates are known."""
  return next((card for card in CARDS if card.name in device_kind), None)


class Work(NamedTuple):
  """What one forward pass of the transformer has to do.

  Attributes:
    linear: operations of all matrices.
    attention: of self-attention.
    cross: of attention to the text.
    elementwise: bytes moved by norms, rotations, gates and the like.
    weights: bytes of parameters read.
    memory: bytes of keys and values read.
  """

  linear: float
  attention: float
  cross: float
  elementwise: float
  weights: float
  memory: float

  @property
  def operations(self) -> float:
    return self.linear + self.attention + self.cross


def forward(config: DiTConfig, queries: int, keys: int) -> Work:
  """Work of `queries` tokens that attend `keys` tokens, themselves included.

  Args:
    config: sizes; two bytes per number.
    queries: tokens of the chunk.
    keys: tokens of the window.
  """
  dim, layers = config.dim, config.num_layers
  matrices = layers * (6 * dim**2 + 2 * dim * config.ffn_dim)
  rows, columns = config.patch_size[1:]
  patch = rows * columns * (config.in_dim + config.out_dim) * dim
  return Work(
    linear=2.0 * queries * (matrices + patch),
    attention=4.0 * queries * keys * dim * layers,
    cross=4.0 * queries * config.text_len * dim * layers,
    elementwise=_ELEMENTWISE * queries * dim * layers,
    weights=2.0 * matrices,
    memory=4.0 * keys * dim * layers,
  )


def chunk_work(
  config: DiTConfig, memory: MemoryConfig, frames: int | None = None
) -> Work:
  """Work of one tick of a chunk.

  Args:
    config: sizes.
    memory: of the stream.
    frames: latent frames in the window; None = a full memory.
  """
  held = memory.sink + memory.window
  frames = held if frames is None else min(frames, held)
  tokens = memory.tokens
  return forward(config, memory.chunk * tokens, frames * tokens)


def limit_s(work: Work, card: Card, precision: Precision = 'bfloat16') -> float:
  """Seconds that no program goes below: compute or memory, the slower."""
  linear, attention = _peaks(card, precision)
  cross = card.bf16 if precision == 'fp8_linear' else attention
  compute = (
    work.linear / linear + work.attention / attention + work.cross / cross
  )
  return max(compute, (work.weights + work.memory) / card.bandwidth)


def _peaks(card: Card, precision: Precision) -> tuple[float, float]:
  rates = {
    'bfloat16': (card.bf16, card.bf16),
    'fp8_linear': (card.fp8, card.bf16),
    'fp8': (card.fp8, card.fp8_attention),
  }
  if precision not in rates:
    raise UserError(
      f'precision must be one of {", ".join(rates)}, not {precision!r}'
    )
  return rates[precision]


def predicted_s(
  work: Work, card: Card, precision: Precision = 'bfloat16'
) -> float:
  """Seconds expected of good kernels at these shapes, one after the other."""
  _peaks(card, precision)
  linear = card.linear if precision == 'bfloat16' else card.linear_fp8
  attention = card.attention_fp8 if precision == 'fp8' else card.attention
  return (
    work.linear / linear
    + work.attention / attention
    + work.cross / card.cross
    + work.elementwise / card.elementwise
  )


def decode_work(decoder: str, latents: int, height: int, width: int) -> float:
  """Operations of decoding `latents` frames of height x width latents."""
  return _DECODE[decoder] * latents * height * width / _DECODE_SIZE


class Estimate(NamedTuple):
  """Seconds of one steady chunk, and frames per second.

  Attributes:
    forward: of one tick.
    ticks: of all of them, the extra one included.
    decode: of its frames.
  """

  forward: float
  ticks: float
  decode: float

  @property
  def chunk(self) -> float:
    return self.ticks + self.decode


def estimate(
  config: DiTConfig,
  memory: MemoryConfig,
  schedule: Schedule,
  decoder: str,
  card: Card,
  *,
  limit: bool,
  precision: Precision = 'bfloat16',
  chunk: int = 10**6,
) -> Estimate:
  """A chunk of a stream: the limit, or the prediction.

  Args:
    config: sizes of the transformer.
    memory: of the stream.
    schedule: of the ticks.
    decoder: 'tae' or 'vae' of Wan2.1.
    card: its rates.
    limit: the limit; False: the prediction.
    precision: of the transformer.
    chunk: index; by default one far behind the first, the memory full.
  """
  frames = (chunk + 1) * memory.chunk
  work = chunk_work(config, memory, frames)
  seconds = limit_s if limit else predicted_s
  rate = card.bf16 if limit else dict(card.decode)[decoder]
  rows, columns = config.patch_size[1:]
  decoded = decode_work(
    decoder, memory.chunk, memory.height * rows, memory.width * columns
  )
  one = seconds(work, card, precision)
  return Estimate(one, one * schedule.calls(chunk), decoded / rate)
