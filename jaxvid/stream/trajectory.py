"""Paths from noise to video: what a solver passes through, for distillation.

A student that denoises in few ticks learns from pairs of a noisy latent and
the clean one that a solver led it to. `clip` samples a whole clip at once with
a bidirectional model; `causal` samples chunk after chunk with a causal one,
each against its own clean past, so that a chunk's end depends on nothing but
its beginning and that past.

Sources: CausVid section 4.2 (ODE pairs); Self-Forcing
`scripts/generate_ode_pairs.py`; Causal Forcing (arXiv 2602.02214).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.diffusion import solvers
from jaxvid.models.dit import TextKV
from jaxvid.stream.stream import Settings, State, velocity


class Path(NamedTuple):
  """A solver, and which of its samples are kept.

  Attributes:
    table: of the solver.
    keep: steps whose (corrected) samples are kept, K of them, rising; the
      sample of step i is at time step `table.t[i]`.
  """

  table: solvers.Table
  keep: tuple[int, ...]


def path_through(
  levels: Sequence[float], steps: int, shift: float, solver: str = 'euler'
) -> Path:
  """A solver that passes through `levels` exactly, and keeps those samples.

  Args:
    levels: shifted time steps, falling, the first 1000.
    steps: of the solver.
    shift: of the solver's own time steps.
    solver: 'euler' or 'unipc'.
  """
  t, keep = solvers.grid_through(levels, steps, shift)
  make = {'euler': solvers.euler_through, 'unipc': solvers.unipc_through}
  return Path(make[solver](t), keep)


def follow(
  settings: Settings, params, text: TextKV, noise, path: Path, memory=None
):
  """One solver run from noise to clean latents.

  Args:
    settings: of the stream; guidance is applied.
    params: the transformer's parameters.
    text: from `stream.encode_prompt`.
    noise: standard normal `[B, F, H, W, C]`.
    path: of the solver.
    memory: past keys and values; None for a whole clip at once.

  Returns:
    `[K + 1, B, F, H, W, C]`: the samples at the kept levels, noisiest first,
    and the clean end; and the memory as the last step left it.
  """
  table, keep = path
  # Steps that are not kept write where the clean end will be.
  place = np.full(len(table.t), len(keep))
  place[list(keep)] = range(len(keep))
  kept = jnp.zeros((len(keep) + 1, *noise.shape), noise.dtype)

  def step(carry, at):
    solver, memory, kept = carry
    i, t, slot = at
    v, memory = velocity(settings, params, solver.x, t, text, memory)
    solver = solvers.step(solver, v, table, i)
    return (solver, memory, kept.at[slot].set(solver.previous)), None

  steps = (jnp.arange(len(table.t)), jnp.asarray(table.t), jnp.asarray(place))
  start = (solvers.init(noise), memory, kept)
  (solver, memory, kept), _ = jax.lax.scan(step, start, steps)
  return kept.at[-1].set(solver.x), memory


def clip(
  settings: Settings, params, text: TextKV, noise: jax.Array, path: Path
) -> jax.Array:
  """Trajectories `[B, K + 1, F, H, W, C]` of whole clips; see `follow`."""
  kept, _ = follow(settings, params, text, noise, path)
  return jnp.moveaxis(kept, 0, 1)


def causal(
  settings: Settings, params, state: State, noise: jax.Array, path: Path
) -> jax.Array:
  """Trajectories of streams, chunk after chunk against their clean past.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: a new stream.
    noise: standard normal `[B, F, H, W, C]`; F a multiple of the chunk.
    path: of the solver, the same for every chunk.

  Returns:
    `[B, K + 1, F, H, W, C]`.
  """
  chunk = settings.memory.chunk
  batch, frames, *rest = noise.shape
  chunks = noise.reshape(batch, frames // chunk, chunk, *rest)

  def step(memory, x):
    kept, memory = follow(settings, params, state.text, x, path, memory)
    _, memory = velocity(settings, params, kept[-1], 0.0, state.text, memory)
    return memory.advance(chunk), kept

  _, kept = jax.lax.scan(step, state.memory, jnp.moveaxis(chunks, 1, 0))
  # [chunks, K + 1, B, chunk, ...] -> [B, K + 1, chunks, chunk, ...]
  kept = jnp.moveaxis(kept, (2, 1), (0, 1))
  return kept.reshape(*kept.shape[:2], frames, *rest)
