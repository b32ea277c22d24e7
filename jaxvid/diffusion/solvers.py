"""Deterministic solvers for the flow ODE: Euler and UniPC, and guidance.

Both are linear multistep methods: the next sample is a weighted sum of the
sample and of the last few estimates of x0. The weights depend on the noise
levels only, so they are computed once on the host in float64 and the solver
itself is a small pure function over a pytree of arrays, at home in
`jax.lax.scan`.

Source: Wan2.1 (`FlowUniPCMultistepScheduler`: order 2, bh2, predict x0);
Zhao et al. 2023, UniPC; Self-Forcing (`FlowMatchScheduler`, Euler).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.diffusion import flow
from jaxvid.errors import UserError

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


def grid_through(
  levels: Sequence[float], steps: int, shift: float
) -> tuple[np.ndarray, tuple[int, ...]]:
  """Time steps of a solver that passes through given ones exactly.

  The steps are spread over the gaps between the levels in proportion to
  their raw width and are evenly spaced inside each, at raw time steps. Where
  the levels lie on the plain grid of `steps` steps, it is that grid.

  Args:
    levels: K shifted time steps, falling, the first 1000.
    steps: solver steps N >= K.
    shift: of the solver's own time steps; that of the levels may differ.

  Returns:
    Shifted time steps [N + 1], the last 0, and where the levels are in it.

  Raises:
    UserError: fewer steps than levels.
  """
  if steps < len(levels):
    raise UserError(
      f'{steps} solver steps cannot pass through {len(levels)} levels'
    )
  raw = np.array([flow.unshift_t(t, shift) for t in (*levels, 0.0)])
  # Every gap gets one step; the rest goes where steps are widest.
  counts = np.ones(len(levels), int)
  for _ in range(steps - len(levels)):
    counts[np.argmax(np.round((raw[:-1] - raw[1:]) / counts, 6))] += 1
  bounds = np.concatenate([[0], np.cumsum(counts)])
  t = flow.shift_t(np.interp(np.arange(steps + 1), bounds, raw), shift)
  t[bounds] = (*levels, 0.0)
  return t, tuple(map(int, bounds[:-1]))


def euler_table(steps: int, shift: float) -> Table:
  """Euler from sigma 1; the model gets t = 1000 sigma."""
  return euler_through(1000 * shifted_sigmas(steps, shift, 1.0))


def euler_through(t: np.ndarray) -> Table:
  """Euler through given time steps [N + 1] that fall to 0."""
  sigma = t / 1000
  ratio = sigma[1:] / sigma[:-1]
  steps = len(ratio)
  predict = np.stack([ratio, 1 - ratio, np.zeros(steps)], -1)
  correct = np.tile(np.eye(5)[0], (steps, 1))
  return _table(t[:-1], sigma, correct, predict)


def unipc_table(steps: int, shift: float) -> Table:
  """UniPC of order 2 with the tables of the official Wan2.1 sampler.

  The first level is that of raw 0.999, and the model gets the truncated
  integer time step while the solver uses the exact level.
  """
  sigma = shifted_sigmas(steps, shift, 1 - 1 / flow.STEPS)
  # Decimal slack: 1000 sigma of an exact integer may come out just below it.
  t = np.trunc(np.float32(1000) * sigma[:-1].astype(np.float32))
  return _table(t, sigma, *_unipc_weights(sigma))


def unipc_through(t: np.ndarray) -> Table:
  """UniPC through given time steps [N + 1] that fall to 0.

  They may begin at 1000, and the model gets them as they are.
  """
  return _table(t[:-1], t / 1000, *_unipc_weights(t / 1000))


def _unipc_weights(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Corrector `[N, 5]` and predictor `[N, 3]` for levels `[N + 1]`."""
  steps = len(sigma) - 1
  # At sigma 1 lambda is minus infinity, where all weights have a limit; this
  # near to it they are exact in float32.
  near = np.minimum(sigma, 1 - 1e-9)
  with np.errstate(divide='ignore'):  # the last level is 0: lambda = inf
    lam = np.log1p(-near) - np.log(near)
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
  return correct, predict


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
