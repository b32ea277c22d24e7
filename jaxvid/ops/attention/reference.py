"""Attention written out: the definition every backend is tested against."""

import jax
import jax.numpy as jnp

from jaxvid.ops.attention.ranges import Visible


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, visible: Visible
) -> jax.Array:
  """Softmax attention with float32 logits and weights.

  Args:
    q: `[B, T, N, D]`.
    k: `[B, S, N, D]`.
    v: `[B, S, N, D]`.
    visible: which keys to attend.

  Returns:
    `[B, T, N, D]` in the dtype of `q`.
  """
  logits = jnp.einsum(
    'btnd,bsnd->bnts', q, k, preferred_element_type=jnp.float32
  )
  logits = logits * (q.shape[-1] ** -0.5)
  mask = visible.mask(k.shape[1])
  if mask is not None:
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum('bnts,bsnd->btnd', weights, v).astype(q.dtype)
