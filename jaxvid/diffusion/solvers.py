"""Deterministic solvers for the flow ODE: Euler and UniPC, and guidance.

Both are linear multistep methods: the next sample is a weighted sum of the
sample and of the last few estimates of x0. The weights depend on the noise
levels only, so they are computed once on the host in float64 and the solver
itself is a small pure function over a pytree of arrays, at home in
`jax.lax.scan`.

Source: Wan2.1 (`FlowUniPCMultistepScheduler`: order 2, bh2, predict x0);
Zhao et al. 2023, UniPC; Self-Forcing (`FlowMatchScheduler`, Euler).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.diffusion import flow

VelocityFn = Callable[[jax.Array, jax.Array], jax.Array]


class Table(NamedTuple):
  """Everything a solver knows before it starts, N steps.

  Attributes:
    t: time steps given to the model, [N].
    sigma: noise levels of the samples, [N + 1], the last is 0.
    correct: weights of (x, previous sample, x0, last x0, x0 before) that
      correct the sample once the velocity at it is known, [N, 5].
    predict: weights of (corrected sample, x0, last x0) that give the next
      sample, [N, 3].
  """

  t: np.ndarray
  sigma: np.ndarray
  correct: np.ndarray
  predict: np.ndarray


class State(NamedTuple):
  """A solver between two steps; all leaves have the shape of the sample.

  Attributes:
    x: the sample, at the noise level of the next step.
    previous: the corrected sample one step ago.
    x0: the last estimate of the clean sample.
    older: the estimate before it.
  """

  x: jax.Array
  previous: jax.Array
  x0: jax.Array
  older: jax.Array


def shifted_sigmas(steps: int, shift: float, start: float) -> np.ndarray:
  """`steps` noise levels from `start` down to, but without, 0; then 0."""
  raw = np.linspace(start, 0, steps + 1)[:-1]
  return np.append(flow.shift_t(1000 * raw, shift) / 1000, 0.0)


def euler_table(steps: int, shift: float) -> Table:
  """Euler from sigma 1; the model gets t = 1000 sigma."""
  sigma = shifted_sigmas(steps, shift, 1.0)
  ratio = sigma[1:] / sigma[:-1]
  predict = np.stack([ratio, 1 - ratio, np.zeros(steps)], -1)
  correct = np.tile(np.eye(5)[0], (steps, 1))
  return _table(1000 * sigma[:-1], sigma, correct, predict)


def unipc_table(steps: int, shift: float) -> Table:
  """UniPC of order 2 with the tables of the official Wan2.1 sampler.

  The first level is that of raw 0.999, and the model gets the truncated
  integer time step while the solver uses the exact level.
  """
  sigma = shifted_sigmas(steps, shift, 1 - 1 / flow.STEPS)
  with np.errstate(divide='ignore'):  # the last level is 0: lambda = inf
    lam = np.log1p(-sigma) - np.log(sigma)
  correct = np.zeros((steps, 5))
  correct[0, 0] = 1
  predict = np.zeros((steps, 3))
  predict[-1, 1] = 1  # at sigma 0 the sample is x0
  for i in range(1, steps):
    order = min(i, 2)
    e, rho = _bh2(lam, i, order)
    scale = -(1 - sigma[i]) * e
    slope = scale * rho[0] if order == 2 else 0.0
    correct[i, 1] = sigma[i] / sigma[i - 1]
    correct[i, 2] = scale * rho[-1]
    correct[i, 3] = scale * (1 - rho[-1]) - slope
    correct[i, 4] = slope
  for i in range(steps - 1):
    h = lam[i + 1] - lam[i]
    scale = -(1 - sigma[i + 1]) * np.expm1(-h)
    slope = 0.0 if i == 0 else 0.5 * scale * h / (lam[i - 1] - lam[i])
    predict[i] = sigma[i + 1] / sigma[i], scale - slope, slope
  # Decimal slack: 1000 sigma of an exact integer may come out just below it.
  t = np.trunc(np.float32(1000) * sigma[:-1].astype(np.float32))
  return _table(t, sigma, correct, predict)


def _bh2(
  lam: np.ndarray, i: int, order: int
) -> tuple[float, tuple[float, ...]]:
  """expm1(-h) and corrector weights for the step from level i - 1 to i.

  The weights are those of ((x0 before - last x0), (x0 - last x0)) in this
  order, the first already divided by its distance.
  """
  h = lam[i] - lam[i - 1]
  e = np.expm1(-h)
  if order == 1:
    return e, (0.5,)
  r = (lam[i - 2] - lam[i - 1]) / h
  p1 = e / -h - 1
  p2 = p1 / -h - 0.5
  rho = np.linalg.solve([[1, 1], [r, 1]], [p1 / e, 2 * p2 / e])
  return e, (rho[0] / r, rho[1])


def _table(*arrays: np.ndarray) -> Table:
  return Table(*(np.asarray(array, np.float32) for array in arrays))


def init(x: jax.Array) -> State:
  """A solver about to take its first step from noise `x`, any shape."""
  # Three arrays, not one thrice: a donated buffer may be given only once.
  return State(x, *(jnp.zeros_like(x) for _ in range(3)))


def step(state: State, velocity: jax.Array, table: Table, i) -> State:
  """One solver step.

  Args:
    state: from `init` or the step before.
    velocity: the model's output at `state.x` and time step `table.t[i]`.
    table: `euler_table` or `unipc_table`.
    i: index of the step, may be traced.
  """
  correct = jnp.asarray(table.correct)[i].astype(state.x.dtype)
  predict = jnp.asarray(table.predict)[i].astype(state.x.dtype)
  sigma = jnp.asarray(table.sigma)[i].astype(state.x.dtype)
  x0 = state.x - sigma * velocity
  corrected = (
    correct[0] * state.x
    + correct[1] * state.previous
    + correct[2] * x0
    + correct[3] * state.x0
    + correct[4] * state.older
  )
  x = predict[0] * corrected + predict[1] * x0 + predict[2] * state.x0
  return State(x, corrected, x0, state.x0)


def sample(velocity_fn: VelocityFn, x: jax.Array, table: Table) -> jax.Array:
  """Noise -> clean sample of the same shape, in one `lax.scan`.

  Args:
    velocity_fn: (x, t) -> velocity, t a float32 scalar in 0..1000.
    x: noise, any shape.
    table: `euler_table` or `unipc_table`.
  """

  def body(state, i):
    velocity = velocity_fn(state.x, jnp.asarray(table.t)[i])
    return step(state, velocity, table, i), None

  state, _ = jax.lax.scan(body, init(x), jnp.arange(len(table.t)))
  return state.x


def guide(cond: jax.Array, uncond: jax.Array, weight: float) -> jax.Array:
  """Classifier-free guidance: u + w (c - u); w = 1 is the prompt alone.

  Some code counts "guidance 3.0" from 0: that is w = 4 here.
  """
  return uncond + weight * (cond - uncond)
