"""Linear attention: sums over keys in the place of a softmax over them.

With features phi(x) = max(x, 0) and rotations R of positions,

    o_i = (sum_j (R_j phi(k_j)) v_j^T)^T R_i phi(q_i)
          / (sum_j phi(k_j) . phi(q_i) + eps):

the rotation stands in the numerator alone, and the sums are all that has to
be remembered of past tokens. Everything is float32. Source: SANA-Video (block
linear attention of LongSANA; lineage of its `LiteLAReLURope`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.ops.rope import rotate

EPS = 1e-8


class Features(NamedTuple):
  """Queries or keys `[..., T, N, D]`, float32.

  Attributes:
    plain: after phi.
    turned: the same, rotated by position.
  """

  plain: jax.Array
  turned: jax.Array


class Sums(NamedTuple):
  """What is remembered of keys and values.

  Attributes:
    values: sum of R phi(k) v^T, `[..., N, D, D]`.
    keys: sum of phi(k), `[..., N, D]`.
  """

  values: jax.Array
  keys: jax.Array


def features(
  x: jax.Array, rotation: jax.Array, split: bool = False
) -> Features:
  """Features of queries or keys `[B, T, N, D]`; see `ops.rope.rotate`."""
  plain = jax.nn.relu(x.astype(jnp.float32))
  return Features(plain, rotate(plain, rotation, split))


def sums(k: Features, v: jax.Array) -> Sums:
  """Sums over the tokens of `[..., T, N, D]`."""
  return Sums(
    jnp.einsum('...tnd,...tne->...nde', k.turned, v.astype(jnp.float32)),
    jnp.sum(k.plain, -3),
  )


def attend(q: Features, known: Sums) -> jax.Array:
  """Attention `[..., T, N, D]` of queries over what is remembered."""
  top = jnp.einsum('...tnd,...nde->...tne', q.turned, known.values)
  below = jnp.einsum('...tnd,...nd->...tn', q.plain, known.keys)
  return top / (below[..., None] + EPS)
