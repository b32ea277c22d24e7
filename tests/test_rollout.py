"""Training rollouts: inference's own chunks, and their exact gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case

from jaxvid.diffusion import flow
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models.dit import DiTConfig
from jaxvid.stream import stream
from jaxvid.training import rollout
from jaxvid.training.rollout import RolloutConfig

CHUNKS = 4


def _settings(schedule, positions='absolute', scan=True, spare=12):
  memory = MemoryConfig(
    *wan_case.LATENT, 2, 4, 2, positions=positions, spare=spare
  )
  return stream.Settings(wan_case.config(), memory, schedule, scan=scan)


def _start(settings, batch=1):
  params = (
    wan_case.stacked_params() if settings.scan else wan_case.unrolled_params()
  )
  text = jax.random.normal(jax.random.key(1), (batch, 5, 32))
  return params, text, stream.init(settings, params, text, jax.random.key(2))


def _generate(settings, table, depth, state, params, **options):
  run = functools.partial(rollout.generate, settings, **options)
  return jax.jit(run)(params, state, table, depth)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize(
  'schedule',
  [schedules.digits('32'), schedules.digits('2', commit='extra(100)')],
  ids=['last', 'extra'],
)
def test_a_rollout_to_the_last_tick_is_inference(schedule, scan):
  settings = _settings(schedule, 'relative', scan)
  params, _, state = _start(settings)
  plain = _settings(schedule, 'relative', scan, spare=0)
  _, expected = jax.jit(
    functools.partial(stream.rollout, plain, num_chunks=CHUNKS)
  )(params, _start(plain)[2])
  table = rollout.table_of(schedule, CHUNKS)
  after, record = _generate(settings, table, jnp.ones(CHUNKS), state, params)
  np.testing.assert_allclose(rollout.join(record.clean), expected, atol=2e-5)
  assert after.memory.frame == 8


def test_a_rollout_leaves_every_chunk_at_its_share_of_its_ticks():
  schedule = schedules.digits('421')
  settings = _settings(schedule)
  params, _, state = _start(settings)
  table = rollout.table_of(schedule, 3)
  _, record = _generate(settings, table, jnp.full(3, 0.6), state, params)
  expected = [schedule.ticks(0)[2], schedule.ticks(1)[1], schedule.ticks(2)[0]]
  np.testing.assert_allclose(record.t, expected)
  x0 = record.clean
  assert jnp.isfinite(x0).all() and x0.shape == record.noisy.shape


def _naive(settings, table, depth, key, params, text):
  """One backward pass through a plain loop over a growing record."""
  state = stream.init(settings, params, text, key)
  clip = []
  for n in range(CHUNKS):
    memory = jax.lax.stop_gradient(state.memory)
    start, later = stream.chunk_keys(state)
    shape = stream.latent_shape(settings, state)
    x = jax.random.normal(start, shape)
    last = int(table.count[n]) - 1
    leave = min(int(depth[n] * table.count[n]), last)
    for i in range(leave + 1):
      v, written = stream.velocity(
        settings, params, x, table.t[n, i], state.text, memory
      )
      x0 = flow.to_x0(x, v, table.sigma[n, i])
      if i < leave:
        eps = stream.tick_noise(later, i, shape)
        x = flow.add_noise(x0, eps, table.next_sigma[n, i])
        x = jax.lax.stop_gradient(x)
    if leave < last:
      eps = stream.tick_noise(later, last, shape)
      x = flow.add_noise(x0, eps, table.context_sigma[n])
      level = table.context_t[n]
      _, written = stream.velocity(
        settings, params, x, level, state.text, memory
      )
    state = state.replace(
      memory=jax.lax.stop_gradient(written).advance(shape[1]),
      chunk=state.chunk + 1,
    )
    clip.append(x0)
  return jnp.concatenate(clip, 1)


def _replayed(settings, table, depth, key, params, text):
  state = stream.init(settings, params, text, key)
  state, record = rollout.generate(settings, params, state, table, depth)
  ready = stream.encode_prompt(settings, params, text)
  return rollout.replay(settings, params, ready, state.memory, record)


@pytest.mark.parametrize('positions', ['absolute', 'relative'])
def test_two_passes_give_the_gradient_of_one(positions):
  schedule = schedules.digits('32')
  settings = _settings(schedule, positions)
  params, text, _ = _start(settings, batch=2)
  table = rollout.table_of(schedule, CHUNKS)
  depth = np.array([0.4, 0.9, 0.2, 0.9], np.float32)
  target = jax.random.normal(jax.random.key(3), (2, 8, 4, 6, 16))

  def make(clip_of):
    def loss(params):
      clip = clip_of(settings, table, depth, jax.random.key(2), params, text)
      return jnp.sum(clip * target), clip

    return jax.jit(jax.grad(loss, has_aux=True))

  expected, whole = make(_naive)(params)
  actual, clip = make(_replayed)(params)
  np.testing.assert_allclose(clip, whole, atol=2e-5)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    scale = max(1.0, float(jnp.abs(b).max()))
    np.testing.assert_allclose(a, b, atol=1e-5 * scale)


def test_two_passes_need_less_than_half_the_memory():
  """At a size where activations outweigh the weights."""
  config = DiTConfig(
    dim=64, ffn_dim=256, num_heads=2, num_layers=4, freq_dim=32, text_dim=16,
    text_len=8, in_dim=4, out_dim=4,
  )  # fmt: skip
  memory = MemoryConfig(8, 8, 0, 6, 2, spare=6)
  schedule = schedules.digits('2')
  settings = stream.Settings(config, memory, schedule, scan=True)
  table = rollout.table_of(schedule, CHUNKS)
  depth = np.full(CHUNKS, 0.9, np.float32)
  x = jnp.zeros((2, 2, 16, 16, 4))
  text = jnp.zeros((2, 8, 16))
  params = jax.eval_shape(
    lambda key: settings.network.init(key, x, jnp.zeros(2), text)['params'],
    jax.random.key(0),
  )

  def temporary(clip_of):
    def loss(params):
      clip = clip_of(settings, table, depth, jax.random.key(2), params, text)
      return jnp.sum(clip**2)

    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary(_replayed) < 0.5 * temporary(_naive)


def test_real_chunks_take_the_place_of_older_ones():
  """The newest chunks are the student's own, those further back are real."""
  schedule = schedules.digits('2')
  settings = _settings(schedule)
  params, _, state = _start(settings)
  table, depth = rollout.table_of(schedule, CHUNKS), jnp.ones(CHUNKS)
  real = jax.random.normal(jax.random.key(5), (1, 8, 4, 6, 16))

  def clean(truth):
    run = functools.partial(rollout.generate, settings, truth_after=1)
    return jax.jit(run)(params, state, table, depth, truth)[1].clean

  base = clean(real)
  first, late = (clean(real.at[:, i : i + 2].add(1.0)) for i in (0, 4))
  # Chunk 1 still sees chunk 0 as it was made, chunk 2 sees the real one.
  np.testing.assert_array_equal(first[:2], base[:2])
  assert jnp.abs(first[2] - base[2]).max() > 1e-3
  # Chunk 2 is replaced after chunk 3 was made: nothing sees the change.
  np.testing.assert_array_equal(late, base)


def test_random_digits_are_rows_of_one_table():
  options = rollout.table_of(schedules.digits('12345'), 5)
  table = rollout.choose_rows(options, jnp.array([3, 1, 1]))
  np.testing.assert_array_equal(table.count, [4, 2, 2])
  expected = rollout.table_of(schedules.digits('422'), 3)
  np.testing.assert_array_equal(table.t[:, :4], expected.t)
  np.testing.assert_array_equal(table.next_sigma[:, :4], expected.next_sigma)


def test_settings_that_cannot_roll_out_are_refused():
  with pytest.raises(UserError, match='gradient_chunks'):
    RolloutConfig(chunks=3, gradient_chunks=4)
  with pytest.raises(UserError, match='no exits'):
    rollout.table_of(schedules.euler(4), 3)
