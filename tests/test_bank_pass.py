"""A clip in one pass equals a stream with a bank, chunk after chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bank import CHUNK, DIM, HEADS, SCENES, TOKENS, _config, _memory

from jaxvid.memory.bank_pass import bank_pass

N, BATCH = len(SCENES), 2
# Of two samples, each with scenes of its own.
STORIES = (SCENES, [3, 3, 3, 2, 2, 3, 1, 3])


def _prompts():
  table = jax.random.normal(jax.random.key(77), (8, 4))
  return table[jnp.asarray(STORIES)]


def _clip(seed):
  keys = jax.random.split(jax.random.key(seed), 3)
  shape = (BATCH, N * TOKENS, HEADS, DIM)
  return [jax.random.normal(key, shape) for key in keys]


def _part(clip, c):
  return [x[:, c * TOKENS : (c + 1) * TOKENS] for x in clip]


@pytest.mark.parametrize('forcing', ['teacher', 'diffusion'])
@pytest.mark.parametrize(
  'sink, window, positions, options',
  [
    (0, 9, 'relative', {}),
    (0, 9, 'absolute', {'alike': 'earlier'}),
    (3, 6, 'relative', {'retrieved': 1, 'alike': 'earlier'}),
    (0, 6, 'relative', {'retrieved': 0}),
    (0, 3, 'relative', {'retrieved': 0}),
    (0, 9, 'relative', {'literal': True}),
    (0, 9, 'absolute', {'retrieval': 'recent'}),
    (0, 9, 'relative', {'retrieved': 9}),
  ],
)
def test_one_pass_shows_what_the_bank_shows(
  forcing, sink, window, positions, options
):
  config = _config(sink, window, positions, **{'capacity': 16, **options})
  prompts, noisy = _prompts(), _clip(1)
  clean = _clip(0) if forcing == 'teacher' else noisy
  both = [jnp.concatenate(pair, 1) for pair in zip(clean, noisy, strict=True)]
  plan = bank_pass(config, prompts, forcing, DIM)
  out, cache = plan.attend(*(both if forcing == 'teacher' else noisy), None)
  assert cache is None
  parts = out.reshape(BATCH, -1, N, TOKENS, HEADS, DIM)

  memory = _memory(config, BATCH)
  for c in range(N):
    memory = memory.begin(prompts[:, c])
    tick = memory.plan(CHUNK)
    for i, clip in enumerate([clean, noisy][2 - parts.shape[1] :]):
      expected, _ = tick.attend(*_part(clip, c), memory.layer(0))
      np.testing.assert_allclose(parts[:, i, c], expected, atol=1e-5)
    caches = [tick.attend(*_part(clean, c), memory.layer(0))[1]] * 2
    memory = memory.updated(tick, caches).advance(CHUNK)


def test_no_chunk_sees_what_comes_after_it():
  config = _config(window=9, positions='relative')
  prompts, clip = _prompts(), _clip(0)
  plan = bank_pass(config, prompts, 'diffusion', DIM)

  def last_of(chunk):
    def total(k):
      out, _ = plan.attend(clip[0], k, clip[2], None)
      return jnp.sum(out[:, chunk * TOKENS : (chunk + 1) * TOKENS])

    return total

  grad = jax.grad(last_of(4))(clip[1])
  assert np.abs(grad[:, 5 * TOKENS :]).max() == 0
  assert np.abs(grad[:, 4 * TOKENS : 5 * TOKENS]).max() > 0
