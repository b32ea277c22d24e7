"""Bidirectional sampling: the whole clip at once, many solver steps."""

import functools

import jax

from jaxvid.diffusion import solvers
from jaxvid.diffusion.schedule import Schedule
from jaxvid.models.dit import TextKV
from jaxvid.stream.stream import Settings, velocity


def solver_table(schedule: Schedule) -> solvers.Table:
  """The solver of a bidirectional schedule."""
  make = {'unipc': solvers.unipc_table, 'euler': solvers.euler_table}
  return make[schedule.update](len(schedule.rows[0]), schedule.shift)


def sample(
  settings: Settings, params, text: TextKV, noise: jax.Array
) -> jax.Array:
  """Noise `[B, F, H, W, C]` -> clean latents of the same shape.

  Args:
    settings: with a bidirectional schedule (`schedule.teacher`) and the
      guidance weight; its memory is not used.
    params: the transformer's parameters.
    text: from `stream.encode_prompt`.
    noise: standard normal.
  """

  def field(x, t):
    return velocity(settings, params, x, t, text, None)[0]

  return solvers.sample(field, noise, solver_table(settings.schedule))


@functools.lru_cache(maxsize=16)
def jitted_sample(settings: Settings):
  """`sample(params, text, noise)`, compiled."""
  return jax.jit(functools.partial(sample, settings))
