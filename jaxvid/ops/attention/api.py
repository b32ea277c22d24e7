"""Dispatch between attention backends."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvid.ops.attention import reference, xla
from jaxvid.ops.attention.ranges import Visible

BACKENDS: dict[str, Callable[..., jax.Array]] = {
  'reference': reference.attention,
  'xla': xla.attention,
}


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  length: jax.Array | None = None,
  ranges: jax.Array | None = None,
  mask: jax.Array | None = None,
  backend: str = 'xla',
) -> jax.Array:
  """Softmax attention over a valid prefix, or over ranges, of the keys.

  Args:
    q: queries `[B, T, N, D]`.
    k: keys `[B, S, N, D]`.
    v: values `[B, S, N, D]`.
    length: number of valid keys, a scalar or one per sample `[B]`; None =
      all S.
    ranges: int32 `[R, T, 2]` (see `ranges.py`); None = all keys.
    mask: boolean `[S]` or `[B, S]`, keys to attend; None = all.
    backend: a name in `BACKENDS`.

  Returns:
    `[B, T, N, D]` in the dtype of `q`.

  Raises:
    ValueError: unknown backend.
  """
  if backend not in BACKENDS:
    raise ValueError(f'backend {backend!r} is not one of {sorted(BACKENDS)}')
  if length is not None:
    prefix = jnp.arange(k.shape[1]) < jnp.asarray(length)[..., None]
    mask = prefix if mask is None else mask & prefix
  return BACKENDS[backend](q, k, v, Visible(mask, ranges))
