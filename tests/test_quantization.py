"""Linear layers in 8 bits: rounding, products, outliers, files, bad input."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bundle

from jaxvid.convert import specs
from jaxvid.errors import UserError
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.models.fused import fuse
from jaxvid.models.layers import Dense, feed_forward
from jaxvid.ops.quantized import FP8, dequantize, join, linear, take
from jaxvid.quantization import observe, tree
from jaxvid.quantization.kernels import (
  Scheme,
  low_rank,
  power_of_two,
  quantize_group,
)
from jaxvid.tasks import bundle, eight_bits, generate, quantize

CONFIG = DiTConfig(
  dim=16,
  ffn_dim=24,
  num_heads=2,
  num_layers=1,
  freq_dim=8,
  text_dim=8,
  text_len=4,
)
MODES = ['int8', 'w8a8', 'fp8']


def _normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _made(kernel, x, **settings):
  """The kernel in 8 bits, calibrated on x."""
  (made,) = quantize_group([kernel], np.abs(x).max(0), Scheme(**settings))
  return made


def _error(kernel, x, weight):
  """Relative error of the layer."""
  bias = jnp.zeros(weight.shape[1])
  y = linear(jnp.asarray(x), jax.tree.map(jnp.asarray, kernel), bias, x.dtype)
  exact = x @ weight
  return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))


@functools.cache
def _params():
  rng = np.random.default_rng(3)
  return jax.tree.map(
    lambda s: 0.3 * rng.standard_normal(s.shape, np.float32),
    specs.abstract('dit', CONFIG),
  )


def _tops(params):
  return {
    name: np.full(tree.layer(params, name)['kernel'].shape[0], 4.0, np.float32)
    for group in tree.groups(params)
    for name in group
  }


def test_weights_are_off_by_half_a_unit_at_most():
  weight = _normal(0, 32, 8) * np.geomspace(0.01, 10, 8, dtype=np.float32)
  made = _made(weight, weight.T)
  assert made.values.dtype == np.int8 and made.values.shape == (8, 32)
  assert made.shape == weight.shape
  off = np.abs(dequantize(jax.tree.map(jnp.asarray, made)) - weight)
  # The scale has eight bits, so the largest weight may be cut a little.
  bound = np.where(np.abs(weight) < 127 * made.scale, 0.5, 1.0) * made.scale
  assert (off <= 1.001 * bound).all()


def test_floats_keep_four_bits_and_scales_are_powers_of_two():
  weight = _normal(1, 32, 8)
  made = _made(weight, weight.T, mode='fp8')
  assert made.values.dtype == FP8
  for scale in (made.scale, made.input_scale):
    assert np.frexp(scale)[0] == 0.5
  off = np.abs(dequantize(jax.tree.map(jnp.asarray, made)) - weight)
  tiny = 2.0**-10 * made.scale
  assert (off <= np.abs(weight) / 16 + tiny).all()
  assert power_of_two(0.0) == 1 and power_of_two(3.0) == 4


@pytest.mark.parametrize('rows', [16, 21])
def test_floats_are_emulated_exactly(rows):
  x, weight = _normal(2, rows, 32), _normal(3, 32, 8)
  made = _made(weight, x, mode='fp8')
  rounded = (x / made.input_scale).astype(FP8).astype(np.float64)
  product = rounded @ made.values.astype(np.float64).T
  expected = product * np.float64(made.scale * made.input_scale) + 0.5
  y = linear(
    jnp.asarray(x), jax.tree.map(jnp.asarray, made), jnp.full(8, 0.5), x.dtype
  )
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('inputs', ['static', 'token'])
def test_integers_are_multiplied_exactly(inputs):
  x, weight = _normal(4, 5, 32), _normal(5, 32, 8)
  made = _made(weight, x, mode='w8a8', inputs=inputs)
  scale = np.abs(x).max(1, keepdims=True) / np.float32(127)
  if inputs == 'static':
    scale = made.input_scale
  units = np.round(x / scale).astype(np.int64)
  product = units @ made.values.astype(np.int64).T
  y = linear(
    jnp.asarray(x), jax.tree.map(jnp.asarray, made), jnp.zeros(8), x.dtype
  )
  np.testing.assert_allclose(y, product * scale * made.scale, rtol=1e-5)


def test_inputs_beyond_the_calibrated_range_are_cut():
  x, weight = _normal(6, 5, 32), np.eye(32, dtype=np.float32)
  made = _made(weight, x, mode='w8a8')
  y = linear(
    jnp.asarray(10 * x), jax.tree.map(jnp.asarray, made), jnp.zeros(32), x.dtype
  )
  assert np.abs(y).max() <= 1.01 * np.abs(x).max()


@pytest.mark.parametrize(
  'mode, bound', [('int8', 0.01), ('w8a8', 0.02), ('fp8', 0.04)]
)
def test_error_on_plain_numbers(mode, bound):
  x, weight = _normal(7, 64, 256), _normal(8, 256, 64)
  assert 0 < _error(_made(weight, x, mode=mode), x, weight) < bound


def test_low_rank_branch_takes_outliers_of_weights():
  x, weight = _normal(9, 64, 48), _normal(10, 48, 40)
  weight += 30 * np.outer(_normal(11, 48), _normal(12, 40))
  plain = _error(_made(weight, x), x, weight)
  branch = _error(_made(weight, x, rank=4), x, weight)
  assert branch < plain / 2
  down, up = low_rank(weight, 4)
  best = np.linalg.svd(weight)[1][4:]
  off = np.linalg.norm(weight - down @ up) / np.linalg.norm(weight)
  assert off < 1.1 * np.linalg.norm(best) / np.linalg.norm(weight) + 4e-3


def test_smoothing_takes_outliers_of_inputs():
  x, weight = _normal(13, 64, 48), _normal(14, 48, 40)
  x[:, 5] *= 50
  plain = _error(_made(weight, x, mode='w8a8'), x, weight)
  smooth = _error(_made(weight, x, mode='w8a8', smoothing=0.5), x, weight)
  assert smooth < plain / 2


@pytest.mark.parametrize('mode', MODES)
def test_joined_and_reordered_layers_are_the_single_ones(mode):
  x = _normal(15, 4, 16)
  weights = [_normal(seed, 16, 6) for seed in (16, 17)]
  scheme = Scheme(mode, rank=2, smoothing=0.3)
  made = quantize_group(weights, np.abs(x).max(0), scheme)
  made = [jax.tree.map(jnp.asarray, kernel) for kernel in made]
  run = functools.partial(linear, jnp.asarray(x), dtype=jnp.float32)
  apart = [run(kernel, bias=jnp.zeros(6)) for kernel in made]
  together = run(join(tuple(made)), bias=jnp.zeros(12))
  np.testing.assert_allclose(together, np.concatenate(apart, 1), atol=1e-5)
  order = np.array([3, 0, 5, 1, 2, 4])
  turned = run(take(made[0], order), bias=jnp.zeros(6))
  np.testing.assert_allclose(turned, apart[0][:, order], atol=1e-5)


def test_rows_padded_between_layers_change_nothing():
  x = jnp.asarray(_normal(18, 3, 7, 16))
  params = {}
  for name, (k, n) in {'a': (16, 24), 'b': (24, 16)}.items():
    kernel = _made(_normal(19, k, n), np.full((1, k), 40.0), mode='fp8')
    params[name] = {
      'kernel': jax.tree.map(jnp.asarray, kernel),
      'bias': jnp.ones(n),
    }
  first, second = (
    Dense(n).bind({'params': params[name]})
    for name, n in (('a', 24), ('b', 16))
  )
  apart = second(jax.nn.relu(first(x)))
  chained = feed_forward(x, first, second, jax.nn.relu)
  np.testing.assert_allclose(chained, apart, atol=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_transformer_takes_kernels_in_8_bits_in_both_layouts(mode):
  params = _params()
  made = tree.quantize(params, Scheme(mode), _tops(params))
  names = {name for name, _ in tree.kernels(made)}
  assert names == {name for group in tree.groups(params) for name in group}
  again = tree.decode(tree.encode(made), mode)
  assert jax.tree.all(jax.tree.map(np.array_equal, made, again))
  assert jax.tree.structure(made) == jax.tree.structure(again)
  x, text = _normal(20, 1, 2, 4, 4, 16), _normal(21, 1, 3, 8)
  t = jnp.full(1, 500.0)
  apply = DiT(CONFIG, scan=False).apply
  plain, _ = apply({'params': params}, x, t, text)
  ours, _ = apply({'params': made}, x, t, text)
  off = np.linalg.norm(ours - plain) / np.linalg.norm(plain)
  assert 1e-5 < off < 0.1
  fused = DiT(CONFIG, scan=False, fused=True).apply
  same, _ = fused({'params': fuse(CONFIG, made)}, x, t, text)
  np.testing.assert_allclose(same, ours, atol=1e-4)


def test_layers_are_seen_from_outside():
  params = _params()
  made = tree.quantize(params, Scheme())
  x, text = _normal(22, 1, 1, 4, 4, 16), _normal(23, 1, 3, 8)
  run = functools.partial(DiT(CONFIG, scan=False).apply, {'params': params})
  call = observe.observed(run, observe.rounding_error(params, made))
  (v, _), seen = call(x, jnp.full(1, 500.0), text)
  np.testing.assert_array_equal(v, run(x, jnp.full(1, 500.0), text)[0])
  assert set(seen) == {name for name, _ in tree.kernels(made)}
  errors = [quantize.ratio(*pair) for pair in seen.values()]
  assert 0 < min(errors) and max(errors) < 0.02


def test_sensitive_layers_stay_with_those_of_the_same_input():
  params = _params()
  groups = tree.groups(params)
  layers = {name: {'error': 0.01} for group in groups for name in group}
  layers['blocks_0/self_attn/k'] = {'error': 0.2}
  keep = quantize.sensitive(groups, layers, 0.1)
  assert keep == {f'blocks_0/self_attn/{name}' for name in 'qkv'}
  made = tree.quantize(params, Scheme(), keep=keep)
  assert keep.isdisjoint(name for name, _ in tree.kernels(made))


def test_int8_takes_55_percent_at_full_size():
  from jaxvid.models.dit import WAN_1_3B

  shapes = specs.abstract('dit', WAN_1_3B)
  size = 0
  for path, leaf in jax.tree.leaves_with_path(shapes):
    names = [entry.key for entry in path]
    eight = names[-1] == 'kernel' and tree.LAYER.fullmatch('/'.join(names[:-1]))
    # A byte for every weight, two for a scale; everything else in bfloat16.
    size += leaf.size + 2 * leaf.shape[-1] if eight else 2 * leaf.size
  assert size <= 0.55 * 2 * sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_task_writes_a_bundle_that_loads(tmp_path):
  source = tiny_bundle.write(tmp_path)
  stream = generate.Config(
    weights=str(source),
    decoder='tae',
    schedule='1',
    window=3,
    sink=0,
    chunk=3,
    height=16,
  )
  target = tmp_path / 'small'
  config = quantize.Config(
    stream, str(target), 'w8a8', smoothing=0.5, count=2, chunks=1, max_error=9.0
  )
  quantize.run(config)
  opened = bundle.open_bundle(str(target))
  assert opened.kinds >= {'dit', 'text', 'tae'}
  params = opened.place('dit', 'float32')
  found = dict(tree.kernels(params))
  assert len(found) == 1 + 10
  assert {kernel.mode for kernel in found.values()} == {'int8', 'w8a8'}
  report = json.loads((target / 'report.json').read_text())
  assert set(report['layers']) == set(found)
  assert report['sizes']['bytes_quantized'] == tree.size(params)
  assert len(report['latents']['error_by_chunk']) == 1
  assert eight_bits.quantized(opened, 'w8a8') is opened
  with pytest.raises(UserError, match='is in w8a8, not int8'):
    eight_bits.quantized(opened, 'int8')
  with pytest.raises(UserError, match='exists'):
    quantize.check(config)
  with pytest.raises(UserError, match='the text encoder of shapes is not the'):
    quantize.check_base('shapes', opened)
  quantize.check_base(str(source), opened)
  with pytest.raises(UserError, match='is no kernel in 8 bits'):
    tree.decode({'ffn_0': {'kernel': {'scale': np.ones(3)}}}, 'int8')


def test_quantised_as_it_is_loaded(tmp_path):
  opened = bundle.open_bundle(str(tiny_bundle.write(tmp_path)))
  small = eight_bits.quantized(opened, 'int8')
  assert tree.is_quantized(small.place('dit', 'float32'))
  assert not tree.is_quantized(opened.place('dit', 'float32'))
  leaves = jax.tree.leaves(small.shapes('dit', 'bfloat16'))
  assert any(leaf.dtype == jnp.int8 for leaf in leaves)
  assert eight_bits.quantized(opened, '') is opened
  with pytest.raises(UserError, match=r'configs/quantize\.py:fp8'):
    eight_bits.quantized(opened, 'fp8')


def test_bad_settings_are_named():
  wrong = {
    'rank': (-1, 'rank'),
    'smoothing': (1.0, 'smoothing'),
    'mode': ('int4', 'int4'),
    'inputs': ('channel', 'channel'),
  }
  for name, (value, message) in wrong.items():
    with pytest.raises(UserError, match=message):
      Scheme(**{name: value})
  with pytest.raises(UserError, match='inputs=static'):
    Scheme('fp8', 'token')
  with pytest.raises(UserError, match='no less than a kernel has'):
    _made(_normal(0, 8, 8), _normal(0, 1, 8), rank=8)
  with pytest.raises(UserError, match='needs ranges'):
    tree.quantize(_params(), Scheme('fp8'))
  with pytest.raises(UserError, match='quantised already'):
    tree.quantize(tree.quantize(_params(), Scheme()), Scheme())
  config = quantize.Config(target='x')
  for name, value in {'count': 0, 'max_error': 0.0, 'target': ''}.items():
    with pytest.raises(UserError, match=name):
      quantize.check(dataclasses.replace(config, **{name: value}))
