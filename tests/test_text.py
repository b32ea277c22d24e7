"""The text encoder against the official implementation."""

import dataclasses
import json

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.convert import rules, torch_file
from jaxvid.models import text
from jaxvid.models.layers import stack_layers


def tiny() -> text.TextConfig:
  c = json.loads(golden.path('umt5/config.json').read_text())
  return text.TextConfig(
    vocab_size=c['vocab_size'],
    dim=c['dim'],
    dim_attn=c['dim_attn'],
    dim_ffn=c['dim_ffn'],
    num_heads=c['num_heads'],
    num_layers=c['encoder_layers'],
    num_buckets=c['num_buckets'],
    max_distance=c['max_dist'],
    eps=c['eps'],
  )


def weights(name: str = 'models_t5_umt5-tiny-enc.pth'):
  return rules.convert(torch_file.load(golden.path(f'umt5/{name}')))


@pytest.fixture(scope='module')
def reference():
  return golden.load('umt5/inputs_outputs.npz')


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision('highest'):
    yield


@pytest.mark.parametrize('scan', [False, True])
def test_raw_output(reference, scan):
  params = stack_layers(weights()) if scan else weights()
  model = text.UMT5(tiny(), scan=scan)
  out = jax.jit(model.apply)(
    {'params': params},
    reference['b3_len24.ids'],
    reference['b3_len24.mask'],
  )
  golden.assert_close(out, reference['b3_len24.raw'])


@pytest.mark.parametrize('case', ['b3_len24', 'b1_len512'])
def test_prompt_embeds(reference, case):
  ids, mask = reference[f'{case}.ids'], reference[f'{case}.mask']
  out = text.encode(tiny(), weights(), ids, mask)
  assert not np.any(np.asarray(out)[mask == 0])
  expected = reference[f'{case}.prompt_embeds']
  golden.assert_close(out[:, : expected.shape[1]], expected)


def test_bfloat16_weights_and_no_mask(reference):
  ids, mask = reference['b3_len24.ids'], reference['b3_len24.mask']
  model = text.UMT5(tiny())
  half = weights('models_t5_umt5-tiny-enc-bf16.pth')
  out = model.apply({'params': half}, ids, mask)
  golden.assert_close(out, reference['b3_len24.bf16_weights.raw'])
  out = model.apply({'params': weights()}, ids)
  golden.assert_close(out, reference['no_mask.raw'])


def test_bfloat16_compute_stays_close(reference):
  ids, mask = reference['b3_len24.ids'], reference['b3_len24.mask']
  out = text.encode(tiny(), weights(), ids, mask, jnp.bfloat16)
  assert out.dtype == jnp.bfloat16
  exact = reference['b3_len24.prompt_embeds']
  error = np.abs(np.asarray(out, np.float32) - exact).max()
  assert error < 0.05 * np.abs(exact).max()


def test_padding_does_not_matter(reference):
  ids, mask = reference['b3_len24.ids'][1:2], reference['b3_len24.mask'][1:2]
  length = int(mask.sum())
  long = text.encode(tiny(), weights(), ids, mask)
  short = text.encode(tiny(), weights(), ids[:, :length], mask[:, :length])
  np.testing.assert_allclose(long[:, :length], short, atol=1e-5)


def test_buckets(reference):
  out = text.position_buckets(np.arange(-600, 601))
  np.testing.assert_array_equal(out, reference['buckets'])


def test_full_size_has_every_official_tensor():
  model = text.UMT5(text.UMT5_XXL)
  ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  tree = jax.eval_shape(model.init, jax.random.key(0), ids)['params']
  flat = rules.flatten(tree)
  keys = {rules.key_of(path) for path in flat}
  assert len(flat) == len(keys) == 242
  assert sum(x.size for x in flat.values()) == 5_680_910_336
  assert flat['blocks_23/ffn/fc2/kernel'].shape == (10_240, 4096)
  tiny_keys = torch_file.load(golden.path('umt5/models_t5_umt5-tiny-enc.pth'))
  model = text.UMT5(dataclasses.replace(text.UMT5_XXL, num_layers=3))
  tree = jax.eval_shape(model.init, jax.random.key(0), ids)['params']
  assert {rules.key_of(p) for p in rules.flatten(tree)} == set(tiny_keys)
