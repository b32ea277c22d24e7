"""What each layer of one tick does beside a bank of past chunks."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.memory import sparse
from jaxvid.ops.attention import attention
from jaxvid.ops.rope import rotate


@struct.dataclass
class BankPlan:
  """One chunk against a context that was put together before it began.

  Attributes:
    rotation: `[2, T, D / 2]` of the chunk's tokens.
    probes: int32 `[P]`, queries that say which tokens matter.
    rotated: keys are remembered rotated (absolute positions).
    causal: see `BankConfig.causal`.
    backend: attention backend.
    split: layout of the pairs, see `ops.rope.rotate`.
  """

  rotation: jax.Array
  probes: jax.Array
  rotated: bool = struct.field(pytree_node=False)
  causal: bool = struct.field(pytree_node=False)
  backend: str = struct.field(pytree_node=False, default='xla')
  split: bool = struct.field(pytree_node=False, default=False)

  def attend(self, q, k, v, cache):
    """Attention of the chunk over itself and its context.

    Args:
      q, k, v: of the chunk `[B, T, N, D]`, not rotated.
      cache: ((context keys `[B, C, N, D]`, how many count `[B]`), values).

    Returns:
      `[B, T, N, D]`; and what the memory takes over: keys and values of the
      chunk, and the importance of its tokens `[B, T]`.
    """
    (past_k, length), past_v = cache
    q, turned = (rotate(x, self.rotation, self.split) for x in (q, k))
    # The chunk first: what counts is then one prefix, per sample.
    keys = jnp.concatenate([turned.astype(past_k.dtype), past_k], 1)
    values = jnp.concatenate([v.astype(past_v.dtype), past_v], 1)
    out = attention(
      q, keys, values, length=q.shape[1] + length, backend=self.backend
    )
    scores = sparse.importance(q, turned, self.probes, self.causal)
    own = turned if self.rotated else k
    return out, (own.astype(past_k.dtype), v.astype(past_v.dtype), scores)
