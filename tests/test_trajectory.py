"""Solver trajectories: they pass where the student will be asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case

from jaxvid.diffusion import flow, solvers
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.stream import stream, teacher, trajectory
from jaxvid.stream.trajectory import Path, path_through

STUDENTS = {
  'self_forcing': schedules.self_forcing().ticks(0),
  'digits': schedules.digits('5').ticks(0),
  'causvid': schedules.causvid().ticks(0),
}


@pytest.mark.parametrize('student', STUDENTS)
@pytest.mark.parametrize('shift', [1.0, 5.0, 8.0])
@pytest.mark.parametrize('steps', [5, 7, 48])
@pytest.mark.parametrize('solver', ['euler', 'unipc'])
def test_levels_and_labels_agree_exactly(student, shift, steps, solver):
  """Whatever the solver's own grid, the student's time steps are on it."""
  levels = STUDENTS[student]
  table, keep = path_through(levels, steps, shift, solver)
  assert len(table.t) == steps
  assert table.t[list(keep)].tolist() == list(np.float32(levels))
  np.testing.assert_array_equal(
    table.sigma[list(keep)], np.float32(np.array(levels) / 1000)
  )
  assert np.all(np.diff(table.sigma) < 0) and table.sigma[-1] == 0
  for weights in (table.correct, table.predict):
    assert np.isfinite(weights).all()


def test_levels_on_the_plain_grid_leave_it_alone():
  """48 steps, every 12th kept: as Self-Forcing makes its pairs."""
  for shift in (5.0, 8.0):
    levels = [flow.shift_t(t, shift) for t in (1000, 750, 500, 250)]
    path = path_through(levels, 48, shift)
    assert path.keep == (0, 12, 24, 36)
    for mine, plain in zip(
      path.table, solvers.euler_table(48, shift), strict=True
    ):
      np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)


def test_too_few_steps_are_refused():
  with pytest.raises(UserError, match='3 solver steps cannot pass through 4'):
    path_through(STUDENTS['self_forcing'], 3, 5.0)


def exact(x, t):
  """The field of points at 2: every path is a straight line to it."""
  return (x - 2.0) / (t / 1000)


@pytest.mark.parametrize('solver', ['euler', 'unipc'])
def test_straight_paths_are_followed_exactly(solver):
  path = path_through(STUDENTS['digits'], 9, 3.0, solver)
  noise = jnp.linspace(-3, 3, 7)
  state, kept = solvers.init(noise), {}
  for i, t in enumerate(path.table.t):
    state = solvers.step(state, exact(state.x, t), path.table, i)
    kept[i] = state.previous
  for i, t in zip(path.keep, STUDENTS['digits'], strict=True):
    wanted = flow.add_noise(jnp.full(7, 2.0), noise, jnp.float32(t / 1000))
    np.testing.assert_allclose(kept[i], wanted, atol=1e-5)
  np.testing.assert_allclose(state.x, 2.0, atol=1e-5)


def settings_of(schedule, chunk, window, **options):
  memory = MemoryConfig(*wan_case.LATENT, 0, window, chunk)
  return stream.Settings(wan_case.config(), memory, schedule, **options)


def text_of(settings, seed):
  size = (2, 4, settings.config.text_dim)
  return jax.random.normal(jax.random.key(seed), size)


def noise_of(frames):
  return jax.random.normal(jax.random.key(5), (2, frames, 4, 6, 16))


def test_a_clip_ends_where_the_sampler_ends():
  settings = settings_of(schedules.teacher(4, 3.0, 'euler'), 2, 2, guidance=3.0)
  params = wan_case.unrolled_params()
  text = stream.encode_prompt(
    settings, params, text_of(settings, 0), text_of(settings, 1)
  )
  whole = teacher.jitted_sample(settings)(params, text, noise_of(2))
  path = Path(solvers.euler_table(4, 3.0), (0, 2))
  run = jax.jit(functools.partial(trajectory.clip, settings, path=path))
  kept = run(params, text, noise_of(2))
  assert kept.shape == (2, 3, 2, 4, 6, 16)
  np.testing.assert_array_equal(kept[:, 0], noise_of(2))
  np.testing.assert_allclose(kept[:, -1], whole, atol=1e-5)
  # The middle one is on the way: the rest of the way leads to the same end.
  x = kept[:, 1]
  for i in (2, 3):
    v, _ = stream.velocity(settings, params, x, path.table.t[i], text, None)
    x = flow.euler_step(
      x, v, path.table.sigma[i], jnp.asarray(path.table.sigma[i + 1])
    )
  np.testing.assert_allclose(x, whole, atol=1e-4)


@pytest.mark.parametrize('scan', [False, True])
def test_causal_trajectories_are_those_of_the_stream(scan):
  """Chunk by chunk, with the past's clean end in memory."""
  settings = settings_of(schedules.euler(3, 5.0), 1, 2, scan=scan)
  params = wan_case.stacked_params() if scan else wan_case.unrolled_params()
  text, noise = text_of(settings, 0), noise_of(3)
  state = stream.init(settings, params, text, jax.random.key(0))
  path = Path(solvers.euler_table(3, 5.0), (0, 1))
  run = jax.jit(functools.partial(trajectory.causal, settings, path=path))
  kept = run(params, state, noise)
  assert kept.shape == (2, 3, 3, 4, 6, 16)
  np.testing.assert_array_equal(kept[:, 0], noise)
  ticks = stream.chunk_ticks(settings.schedule, 0)
  denoise = jax.jit(functools.partial(stream.denoise, settings))
  for i in range(3):
    state, x0 = denoise(params, state, ticks, noise[:, i : i + 1], None)
    np.testing.assert_allclose(kept[:, -1, i : i + 1], x0, atol=1e-5)
