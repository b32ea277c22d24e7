"""Adapters: attached, merged, written and read again."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case
from golden import assert_close, load, path

from jaxvid.convert import checkpoint, rules
from jaxvid.convert import lora as lora_files
from jaxvid.errors import UserError
from jaxvid.models.dit import text_kv
from jaxvid.models.layers import unstack_layers
from jaxvid.training import lora
from jaxvid.training.lora import LoRAConfig

SMALL = LoRAConfig(rank=3, alpha=6.0)


def _params(scan):
  return wan_case.stacked_params() if scan else wan_case.unrolled_params()


def _adapter(scan, config=SMALL):
  """Random, B too."""
  tree = lora.create(config, _params(scan), jax.random.key(1))
  keys = iter(jax.random.split(jax.random.key(2), 100))
  return jax.tree.map(
    lambda x: 0.1 * jax.random.normal(next(keys), x.shape), tree
  )


def _inputs():
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (2, 1, 4, 6, 16))
  return x, jnp.full(2, 500.0), jax.random.normal(keys[1], (2, 5, 32))


@functools.cache
def _apply(scan):
  network, _ = wan_case.network(scan)
  return jax.jit(lambda params, *x: network.apply({'params': params}, *x)[0])


@pytest.mark.parametrize('scan', [False, True])
def test_attached_and_merged_agree(scan):
  params, adapter = _params(scan), _adapter(scan)
  parts = lora.attach(params, adapter, SMALL.scale)
  whole = lora.merge(params, adapter, SMALL.scale)
  a, b, plain = (
    _apply(scan)(tree, *_inputs()) for tree in (parts, whole, params)
  )
  np.testing.assert_allclose(a, b, atol=1e-5)
  assert jnp.abs(a - plain).max() > 0.01
  text = _inputs()[2]
  for x, y in zip(
    jax.tree.leaves(text_kv(wan_case.config(), parts, text)),
    jax.tree.leaves(text_kv(wan_case.config(), whole, text)),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, atol=1e-5)
  other = lora_files.merge(params, adapter, SMALL.scale)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), whole, other
  )


def test_a_fresh_adapter_changes_nothing():
  params = _params(True)
  adapter = lora.create(SMALL, params, jax.random.key(1))
  leaves = jax.tree.leaves_with_path(adapter)
  assert len(leaves) == 2 * 10  # Stacks of A and B.
  a = adapter['blocks']['ffn_2']['lora_A']['kernel']
  assert a.shape == (2, 192, 3) and jnp.abs(a).max() <= 192**-0.5
  parts = lora.attach(params, adapter, SMALL.scale)
  for x, y in zip(
    _apply(True)(parts, *_inputs()), _apply(True)(params, *_inputs()),
    strict=True,
  ):  # fmt: skip
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_published_adapters_attach():
  """The released layout: 300 pairs at 1.3B, here 20, scale 2."""
  config, adapter = checkpoint.load_checkpoint(
    path('lora/lora.pt'), 'lora', lora_alpha=8
  )
  params = lora.attach(_params(False), adapter, config.scale)
  data = load('lora/inputs_outputs.npz')
  x = wan_case.last(data['t2v.x'])[None]
  text = jnp.asarray(data['t2v.context'])[None]
  t = jnp.atleast_1d(data['t2v.t'])
  out = _apply(False)(params, x, t, text)
  assert_close(wan_case.first(out)[0], data['t2v.out'])


def test_targets_by_regular_expression():
  config = LoRAConfig(2, 2.0, r'blocks_1/self_attn/[qv]$')
  names = set(lora.targets(config, _params(False)))
  assert names == {'blocks_1/self_attn/q', 'blocks_1/self_attn/v'}
  adapter = lora.create(config, _params(False), jax.random.key(0))
  assert lora.count(adapter) == 2 * 2 * 2 * 96
  with pytest.raises(UserError, match="'blox' matches no layer"):
    lora.targets(LoRAConfig(targets='blox'), _params(False))


@pytest.mark.parametrize('scan', [False, True])
def test_peft_folders_there_and_back(scan, tmp_path):
  adapter = _adapter(scan)
  checkpoint.save_adapter(tmp_path, adapter, SMALL.rank, SMALL.alpha)
  head = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert (head['peft_type'], head['r'], head['lora_alpha']) == ('LORA', 3, 6.0)
  assert set(head['target_modules']) == {
    *(f'{kind}_attn.{x}' for kind in ('self', 'cross') for x in 'qkvo'),
    'ffn.0',
    'ffn.2',
  }
  config, again = checkpoint.load_checkpoint(tmp_path, 'lora')
  assert config.scale == SMALL.scale
  expected = rules.flatten(unstack_layers(adapter))
  found = rules.flatten(again)
  assert found.keys() == expected.keys()
  for name, x in found.items():
    np.testing.assert_array_equal(x, expected[name])


@pytest.mark.parametrize(
  'options, message',
  [({'rank': 0}, 'rank must be'), ({'targets': '('}, 'no regular expression')],
)
def test_impossible_adapters_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    LoRAConfig(**options)


def test_an_adapter_of_another_model_is_refused():
  stranger = {'stem': {'lora_A': {}}}
  for join in (lora.attach, lora.merge):
    with pytest.raises(UserError, match='no stem to adapt'):
      join(_params(False), stranger, 1.0)
