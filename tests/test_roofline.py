"""The model of speed against published sizes and worked figures."""

import jax
import pytest

from jaxvid.convert import specs
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.evaluation import roofline
from jaxvid.evaluation.roofline import H100, H200
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import WAN_1_3B

# Latent frames in the window -> operations (linear, attention, cross) in
# 10^12 and the limits in ms: bf16, 8-bit matrices, 8 bits.
TABLE = {
  3: (11.71, 4.04, 0.44, 20.5, 13.7, 12.6),
  9: (11.71, 12.11, 0.44, 30.7, 24.0, 20.6),
  12: (11.71, 16.15, 0.44, 35.8, 29.1, 24.7),
  21: (11.71, 28.26, 0.44, 51.2, 44.4, 36.8),
}


def _memory(frames, chunk=3):
  return MemoryConfig(30, 52, 0, frames, chunk)


@pytest.mark.parametrize('frames', TABLE)
def test_work_and_limits_of_a_forward(frames):
  work = roofline.chunk_work(WAN_1_3B, _memory(frames))
  linear, attention, cross, *limits = TABLE[frames]
  got = [x / 1e12 for x in work[:3]]
  assert got == pytest.approx([linear, attention, cross], abs=6e-3)
  for precision, ms in zip(
    ('bfloat16', 'fp8_linear', 'fp8'), limits, strict=True
  ):
    seconds = roofline.limit_s(work, H200, precision)
    assert 1e3 * seconds == pytest.approx(ms, abs=0.06)


def test_weights_are_those_of_the_network():
  """All matrices of the layers but those that make the text's K and V."""
  params = specs.abstract('dit', WAN_1_3B)
  blocks = [v for k, v in params.items() if k.startswith('blocks_')]
  matrices = sum(x.size for x in jax.tree.leaves(blocks) if x.ndim == 2)
  tables = 30 * 6 * 1536
  text = 30 * 2 * 1536**2
  work = roofline.chunk_work(WAN_1_3B, _memory(12))
  assert work.weights == 2 * (matrices - tables - text)
  assert work.memory == pytest.approx(3.45e9, rel=1e-3)


@pytest.mark.parametrize(
  'schedule, frames, decoder, limit, ms',
  [
    (schedules.digits('2'), 12, 'tae', True, 73.7),
    (schedules.self_forcing(), 12, 'tae', True, 181),
    (schedules.self_forcing(), 21, 'tae', True, 258),
    (schedules.digits('2'), 12, 'vae', True, 123),
    (schedules.digits('2'), 12, 'tae', False, 106),
    (schedules.digits('2'), 21, 'tae', False, 12e3 / 82),
  ],
)
def test_a_chunk(schedule, frames, decoder, limit, ms):
  got = roofline.estimate(
    WAN_1_3B, _memory(frames), schedule, decoder, H200, limit=limit
  )
  assert 1e3 * got.chunk == pytest.approx(ms, rel=0.01)


def test_the_first_chunk_has_a_small_window():
  got = roofline.estimate(
    WAN_1_3B,
    _memory(12),
    schedules.digits('42'),
    'tae',
    H200,
    limit=True,
    chunk=0,
  )
  assert 1e3 * got.ticks == pytest.approx(82, abs=0.5)


def test_cards_by_the_names_that_jax_gives_them():
  assert roofline.card_of('NVIDIA H200') is H200
  assert roofline.card_of('NVIDIA H100 80GB HBM3') is H100
  assert roofline.card_of('cpu') is None
  with pytest.raises(UserError, match='fp4'):
    roofline.limit_s(roofline.forward(WAN_1_3B, 1, 1), H200, 'fp4')
