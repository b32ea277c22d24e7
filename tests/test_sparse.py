"""Selection of salient tokens against algorithm 2 in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.memory import sparse


def build_sparse_kv(q, k, v, probes, tau, causal=True):
  """Algorithm 2 of BlockVid, loop by loop: (kept, M) of one sample.

  q, k and v are `[T, N, D]`, rotated already; probes are indices.
  """
  tokens, heads, dim = k.shape
  if len(q) == 1:
    return np.arange(tokens), tokens
  s = np.zeros(tokens)
  for head in range(heads):
    for i in probes:
      logits = np.array([q[i, head] @ k[j, head] for j in range(tokens)])
      logits = logits / np.sqrt(dim)
      if causal:
        logits[i + 1 :] = -np.inf
      weights = np.exp(logits - logits.max())
      s += weights / weights.sum()
  m = np.array([s[: j + 1].mean() for j in range(tokens)])
  order = np.argsort(-m, kind='stable')
  total, count = 0.0, 0
  while count < tokens and total < tau * m.sum():
    total += m[order[count]]
    count += 1
  return order[:count], count


def _qkv(seed, batch=2, tokens=40, heads=3, dim=8):
  keys = jax.random.split(jax.random.key(seed), 3)
  shape = (batch, tokens, heads, dim)
  return [2 * jax.random.normal(key, shape) for key in keys]


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('tau', [0.3, 0.9, 0.98, 1.0])
def test_selection_is_algorithm_2(tau, causal):
  q, k, v = _qkv(1)
  probes = sparse.probe_index(jax.random.key(5), 40, 6, 7)
  scores = sparse.importance(q, k, probes, causal)
  means = sparse.cumulative_mean(scores)
  index, count = sparse.select(means, tau, 40)
  for b in range(2):
    kept, size = build_sparse_kv(
      *(np.asarray(x[b], np.float64) for x in (q, k, v)),
      np.asarray(probes),
      tau,
      causal,
    )
    assert count[b] == size
    assert set(np.asarray(index[b, :size])) == set(kept)


def test_probes_are_recent_and_random_and_different():
  index = np.asarray(sparse.probe_index(jax.random.key(0), 200, 64, 64))
  assert index[:64].tolist() == list(range(136, 200))
  assert len(set(index)) == 128 and index[64:].max() < 136
  other = np.asarray(sparse.probe_index(jax.random.key(1), 200, 64, 64))
  assert set(other[64:]) != set(index[64:])
  short = np.asarray(sparse.probe_index(jax.random.key(0), 70, 64, 64))
  assert sorted(short) == list(range(70))
  assert len(sparse.probe_index(jax.random.key(0), 5, 64, 64)) == 5


def test_smallest_cover():
  x = jnp.asarray([[4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
  assert sparse.cover_count(x, 0.4).tolist() == [1, 2]
  assert sparse.cover_count(x, 0.7).tolist() == [2, 3]
  assert sparse.cover_count(x, 0.95).tolist() == [4, 4]
  assert sparse.cover_count(x, 2.0).tolist() == [4, 4]


def test_a_budget_limits_what_is_kept():
  x = jnp.asarray([[4.0, 1.0, 3.0, 2.0]])
  index, count = sparse.select(x, 0.95, 2)
  assert index.tolist() == [[0, 2]] and count.tolist() == [2]
  index, count = sparse.select(x, 0.7, 6)
  assert index.tolist() == [[0, 2, 3, 1, 0, 0]] and count.tolist() == [2]


def test_compaction_keeps_the_order():
  keep = jnp.asarray([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
  index, count = sparse.compact(keep, 4)
  assert index.tolist() == [[1, 3, 4, 0], [0] * 4]
  assert count.tolist() == [3, 0]
