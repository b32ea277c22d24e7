"""Attention as plain matrix products with a backward pass of its own.

Timed on a CPU, the derivative that XLA makes of the reference is slower than
the one written here, which needs no [T, S] product for the softmax's centre.

Where the logits of all queries would take too much memory, queries go in
blocks, one after the other, and the backward pass computes each block's
weights again.
"""

import functools

import jax
import jax.numpy as jnp

from jaxvid.ops.attention.ranges import Visible

# Bytes of float32 logits written out at once.
LIMIT = 1 << 29


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  visible: Visible,
  limit: int = LIMIT,
) -> jax.Array:
  """As `reference.attention`: `[B, T, N, D]`, float32 softmax.

  Args:
    q: `[B, T, N, D]`.
    k: `[B, S, N, D]`.
    v: `[B, S, N, D]`.
    visible: which keys to attend.
    limit: bytes of logits to stay within, as far as whole rows allow.
  """
  batch, queries, heads, _ = q.shape
  rows = _rows(batch, heads, queries, k.shape[1], limit)
  parts = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  if rows == queries:
    out = _attend(*parts, visible.mask(k.shape[1]))
  else:
    out = _attend_blocks(rows, *parts, *visible)
  return jnp.swapaxes(out, 1, 2).astype(q.dtype)


def logit_bytes(batch: int, heads: int, queries: int, keys: int) -> int:
  """Bytes of the float32 logits that `attention` writes out at once."""
  rows = _rows(batch, heads, queries, keys, LIMIT)
  return 4 * batch * heads * rows * keys


def _rows(batch: int, heads: int, queries: int, keys: int, limit: int) -> int:
  """Queries per block; blocks are of equal size, as far as possible."""
  most = max(1, limit // (4 * batch * heads * keys))
  return -(-queries // -(-queries // most))


@jax.custom_vjp
def _attend(q, k, v, mask):
  return _forward(q, k, v, mask)[0]


def _forward(q, k, v, mask):
  weights = _weights(q, k, mask, v.dtype)
  out = jnp.einsum('bnts,bnsd->bntd', weights, v)
  return out, (q, k, v, weights, out)


def _weights(q, k, mask, dtype):
  logits = jnp.einsum(
    'bntd,bnsd->bnts', q, k, preferred_element_type=jnp.float32
  )
  logits = logits * (q.shape[-1] ** -0.5)
  if mask is not None:
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
  return jax.nn.softmax(logits, axis=-1).astype(dtype)


def _backward(saved, g):
  q, k, v, _, _ = saved
  dq, dk, dv = _gradients(saved, g)
  return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


def _gradients(saved, g, sums=None):
  """Gradients of q, k and v; those of k and v summed in type `sums`."""
  q, k, v, weights, out = saved
  # A row of weights @ its own gradient is out @ g, which is much shorter.
  centre = jnp.sum((out * g).astype(jnp.float32), -1, keepdims=True)
  d_weights = jnp.einsum(
    'bntd,bnsd->bnts', g, v, preferred_element_type=jnp.float32
  )
  d_logits = weights * (d_weights - centre) * (q.shape[-1] ** -0.5)
  d_logits = d_logits.astype(q.dtype)
  dq = jnp.einsum('bnts,bnsd->bntd', d_logits, k)
  total = functools.partial(
    jnp.einsum, 'bnts,bntd->bnsd', preferred_element_type=sums
  )
  return dq, total(d_logits, q), total(weights, g)


_attend.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_blocks(rows, q, k, v, keys, ranges):
  return _forward_blocks(rows, q, k, v, keys, ranges)[0]


def _forward_blocks(rows, q, k, v, keys, ranges):
  def block(part):
    q, ranges = part
    return _forward(q, k, v, Visible(keys, ranges).mask(k.shape[2]))[0]

  parts = _split(q, rows), _split_ranges(ranges, rows)
  out = _join(jax.lax.map(block, parts), q.shape[2])
  return out, (q, k, v, keys, ranges, out)


def _backward_blocks(rows, saved, g):
  q, k, v, keys, ranges, out = saved

  def block(sums, part):
    q, out, g, ranges = part
    mask = Visible(keys, ranges).mask(k.shape[2])
    again = q, k, v, _weights(q, k, mask, v.dtype), out
    dq, *more = _gradients(again, g, jnp.float32)
    return jax.tree.map(jnp.add, sums, more), dq

  zeros = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
  parts = *(_split(x, rows) for x in (q, out, g)), _split_ranges(ranges, rows)
  (dk, dv), dq = jax.lax.scan(block, zeros, parts)
  dq = _join(dq, q.shape[2]).astype(q.dtype)
  return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend_blocks.defvjp(_forward_blocks, _backward_blocks)


def _split(x, rows):
  """`[..., T, D]` -> `[blocks, ..., rows, D]`, padded with zeros."""
  count = -(-x.shape[-2] // rows)
  pads = [(0, 0)] * x.ndim
  pads[-2] = (0, count * rows - x.shape[-2])
  x = jnp.pad(x, pads)
  x = x.reshape(*x.shape[:-2], count, rows, x.shape[-1])
  return jnp.moveaxis(x, -3, 0)


def _split_ranges(ranges, rows):
  """The same of `[R, T, 2]`; rows of the padding attend nothing."""
  return None if ranges is None else _split(ranges, rows)


def _join(x, length):
  """`[blocks, ..., rows, D]` -> `[..., T, D]` without the padding."""
  x = jnp.moveaxis(x, 0, -3)
  x = x.reshape(*x.shape[:-3], -1, x.shape[-1])
  return x[..., :length, :]
