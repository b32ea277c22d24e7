"""Solvers against the official sampler's tables and trajectories."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.diffusion import solvers


def lin(x, t):
  return 0.7 * x + 0.4 * (t / 1000) - 0.1


def sin(x, t):
  return jnp.sin(1.3 * x + 2 * (t / 1000)) + 0.2 * x


def cfg5(x, t):
  return solvers.guide(sin(x, t), lin(x, t), 5.0)


FIELDS = {'lin': lin, 'sin': sin, 'cfg5': cfg5}
TABLES = {'unipc': solvers.unipc_table, 'euler': solvers.euler_table}


@pytest.fixture(scope='module')
def data():
  return golden.load('unipc/inputs_outputs.npz')


def trajectory(velocity_fn, x, table):
  step = jax.jit(
    lambda state, i: solvers.step(
      state, velocity_fn(state.x, jnp.asarray(table.t)[i]), table, i
    )
  )
  states = [solvers.init(x)]
  for i in range(len(table.t)):
    states.append(step(states[-1], i))
  return np.stack([state.x for state in states])


@pytest.mark.parametrize('name', ['unipc', 'euler'])
@pytest.mark.parametrize('shift', [5, 8])
@pytest.mark.parametrize('steps', [10, 50])
def test_matches_official_sampler(data, name, shift, steps):
  prefix = f'{name}.shift{shift}.steps{steps}.'
  table = TABLES[name](steps, float(shift))
  golden.assert_close(table.sigma[:-1], data[prefix + 'sigmas'][:-1])
  assert table.sigma[-1] == 0
  if name == 'unipc':
    np.testing.assert_array_equal(table.t, data[prefix + 'timesteps'])
  else:
    golden.assert_close(table.t, data[prefix + 'timesteps'])
  for field, velocity_fn in FIELDS.items():
    if prefix + field not in data:
      continue
    reference = data[prefix + field]
    x = jnp.asarray(reference[0])
    golden.assert_close(trajectory(velocity_fn, x, table), reference)
    golden.assert_close(solvers.sample(velocity_fn, x, table), reference[-1])


def test_guidance_matches_official_formula(data):
  for weight in (3, 5, 6):
    actual = solvers.guide(data['cfg.cond'], data['cfg.uncond'], weight)
    golden.assert_close(actual, data[f'cfg.guidance{weight}'])


def test_one_step_trusts_the_first_estimate():
  x = jnp.arange(6.0).reshape(2, 3)
  for make in TABLES.values():
    table = make(1, 5.0)
    out = solvers.sample(lambda x, t: x - 2.0, x, table)
    np.testing.assert_allclose(out, x - table.sigma[0] * (x - 2), rtol=1e-6)


def test_unipc_is_more_accurate_than_euler():
  """On a smooth field 10 UniPC steps beat 10 Euler steps by far."""
  x = jnp.linspace(-2, 2, 16)
  best = solvers.sample(sin, x, solvers.euler_table(2000, 1.0))
  errors = {}
  for name, make in TABLES.items():
    out = solvers.sample(sin, x, make(10, 1.0))
    errors[name] = float(jnp.abs(out - best).max())
  assert errors['unipc'] < 0.2 * errors['euler'], errors


def test_bfloat16_samples_stay_bfloat16():
  x = jnp.ones((2, 3), jnp.bfloat16)
  out = solvers.sample(lambda x, t: x, x, solvers.unipc_table(4, 5.0))
  assert out.dtype == jnp.bfloat16
