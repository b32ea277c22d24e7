"""Checkpoints of the ecosystem become our parameters, and come back."""

import json
import re
import shutil

import golden
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_writer
from safetensors import numpy as safetensors

from jaxvid.convert import (
  checkpoint,
  lora,
  names,
  rules,
  safetensors_file,
  specs,
  torch_file,
)
from jaxvid.models import dit, text, vae
from jaxvid.models.layers import stack_layers
from jaxvid.storage import weights

DIT = golden.path('dit/diffusion_pytorch_model.safetensors')
VAE = golden.path('wan_vae/Wan2.1_VAE.pth')
TAE = golden.path('taew2_1/taew2_1.pth')
TEXT = golden.path('umt5/models_t5_umt5-tiny-enc-bf16.pth')
LORA = golden.path('lora/lora.pt')
HALF = golden.path('dit/self_forcing_style_bf16.pt')
CONFIG = golden.path('dit/config.json')


@pytest.fixture(scope='module')
def official():
  """The golden transformer by official key."""
  return safetensors.load_file(DIT)


def assert_same(a, b):
  """Equal names, types and bits."""
  a, b = rules.flatten(a), rules.flatten(b)
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype, name
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
  ('path', 'kind', 'count'),
  [
    (DIT, 'dit', 69),
    (HALF, 'dit', 69),
    (VAE, 'vae', 194),
    (TAE, 'tae', 128),
    (TEXT, 'text', 32),
    (LORA, 'lora', 40),
  ],
)
def test_round_trips_keep_every_bit(tmp_path, path, kind, count):
  config, params = checkpoint.load_checkpoint(path)
  assert checkpoint.kind_of(config) == kind
  assert len(rules.flatten(params)) == count
  # Official keys again, readable by others.
  file = tmp_path / 'x.safetensors'
  checkpoint.to_safetensors(params, file, config)
  source = (
    safetensors.load_file(path)
    if path.suffix == '.safetensors'
    else torch_file.load(path)
  )
  source = source.get('generator_ema', source)
  source = source.get('generator_lora', source)
  source = {k.removeprefix('model.'): x for k, x in source.items()}
  assert_same(safetensors.load_file(file), source)
  assert_same(safetensors_file.load(file)[0], source)
  # Ours again; the config came along.
  assert checkpoint.load_checkpoint(file, kind)[0] == config
  assert_same(checkpoint.load_checkpoint(file)[1], params)
  weights.save(tmp_path / 'ours', params, {'a': 1})
  settings, again = weights.load(tmp_path / 'ours')
  assert settings == {'a': 1}
  assert_same(again, params)


def test_stacked_and_jax_parameters_are_written_alike(tmp_path):
  _, params = checkpoint.load_checkpoint(HALF)
  checkpoint.to_safetensors(params, tmp_path / 'a.safetensors')
  stacked = stack_layers(checkpoint.transfer(params, jnp.array))
  checkpoint.to_safetensors(stacked, tmp_path / 'b.safetensors')
  assert_same(
    safetensors.load_file(tmp_path / 'a.safetensors'),
    safetensors.load_file(tmp_path / 'b.safetensors'),
  )


def test_orbax_files_serve_both_modules(tmp_path):
  from jaxvid.training import checkpoint as training

  _, params = checkpoint.load_checkpoint(HALF)
  weights.save(tmp_path / 'a', params, {'x': 1})
  settings, loaded = training.load_params(tmp_path / 'a')
  assert settings == {'x': 1}
  assert_same(jax.tree.map(np.asarray, loaded), params)
  weights.save(tmp_path / 'b', loaded, {'x': 2})
  settings, loaded = weights.load(tmp_path / 'b')
  assert settings == {'x': 2}
  assert_same(loaded, params)


WRAPPED = 'model._fsdp_wrapped_module.'


@pytest.mark.parametrize(
  ('layout', 'use_ema'),
  [
    (lambda w: w, None),
    (lambda w: {f'model.{k}': x for k, x in w.items()}, False),
    (lambda w: {f'model.diffusion_model.{k}': x for k, x in w.items()}, None),
    (lambda w: {f'diffusion_model.{k}': x for k, x in w.items()}, None),
    (lambda w: {'model': w, 'step': 3, 'note': 'x'}, None),
    (lambda w: {'generator': w, 'critic': {'model.x': np.zeros(1)}}, None),
    (lambda w: {'generator': w, 'generator_ema': {}, 'step': 1}, False),
    (lambda w: {'generator_ema': w, 'generator': {'x': np.zeros(1)}}, None),
    (lambda w: {'generator_ema': w}, True),
    (
      lambda w: {
        'generator_ema': {
          WRAPPED + re.sub(r'(blocks\.\d+\.)', r'\1_fsdp_wrapped_module.', k): x
          for k, x in w.items()
        },
        'generator_optimizer': {'state': {0: {'step': 1}}},
      },
      True,
    ),
    (
      lambda w: {
        re.sub(
          r'(blocks\.\d+\.)', r'\1_checkpoint_wrapped_module._orig_mod.', k
        ): x
        for k, x in w.items()
      },
      None,
    ),
    (
      lambda w: {
        'generator': {f'model.{k}': x for k, x in w.items()}
        | {
          '_cls_pred_branch.0.weight': np.zeros(3, np.float32),
          '_register_tokens.weight': np.zeros(3, np.float32),
          '_gan_ca_blocks.0.q.weight': np.zeros(3, np.float32),
        }
      },
      None,
    ),
  ],
)
def test_layouts_of_training_checkpoints(tmp_path, official, layout, use_ema):
  torch_writer.save(tmp_path / 'x.pt', layout(official))
  shutil.copy(CONFIG, tmp_path)
  config, params = checkpoint.load_checkpoint(
    tmp_path / 'x.pt', 'dit', use_ema=use_ema
  )
  assert config.num_heads == 2 and config.text_len == 16
  assert_same(params, checkpoint.load_checkpoint(DIT)[1])


def test_choice_of_ema(tmp_path, official):
  other = {k: x + 1 for k, x in official.items()}
  tree = {'generator': other, 'generator_ema': official}
  torch_writer.save(tmp_path / 'x.pt', tree)
  shutil.copy(CONFIG, tmp_path)
  bias = official['head.head.bias']
  for use_ema, expected in ((None, bias), (True, bias), (False, bias + 1)):
    _, params = checkpoint.load_checkpoint(tmp_path / 'x.pt', use_ema=use_ema)
    np.testing.assert_array_equal(params['head']['head']['bias'], expected)


def test_shards_index_and_folder(tmp_path, official):
  keys = list(official)
  stem = 'diffusion_pytorch_model'
  files = [f'{stem}-0000{i}-of-00003.safetensors' for i in (1, 2, 3)]
  index = {k: files[i % 3] for i, k in enumerate(keys)}
  for file in files:
    part = {k: official[k] for k in keys if index[k] == file}
    safetensors.save_file(part, tmp_path / file)
  shutil.copy(CONFIG, tmp_path)
  expected = checkpoint.load_checkpoint(DIT)[1]
  assert_same(checkpoint.load_checkpoint(tmp_path)[1], expected)
  assert_same(checkpoint.load_checkpoint(tmp_path / files[1])[1], expected)
  listing = tmp_path / f'{stem}.safetensors.index.json'
  listing.write_text(json.dumps({'metadata': {}, 'weight_map': index}))
  assert_same(checkpoint.load_checkpoint(listing)[1], expected)
  assert_same(checkpoint.load_checkpoint(tmp_path, 'dit')[1], expected)


def test_official_folder_of_several_models(tmp_path):
  for file in (DIT, CONFIG, VAE, TEXT):
    shutil.copy(file, tmp_path)
  assert isinstance(checkpoint.load_checkpoint(tmp_path)[0], dit.DiTConfig)
  config, _ = checkpoint.load_checkpoint(tmp_path, 'vae')
  # The transformer's config.json must not disturb the others.
  assert config == checkpoint.load_checkpoint(VAE)[0]
  assert config.latent_mean == vae.WAN_VAE.latent_mean
  config, _ = checkpoint.load_checkpoint(tmp_path, 'text')
  assert isinstance(config, text.TextConfig)


def test_old_growing_layers_keep_their_last_channels(tmp_path):
  tree = dict(torch_file.load(TAE))
  key = 'decoder.7.conv.weight'
  extra = np.full_like(tree[key], 9)
  tree = {k: np.array(x) for k, x in tree.items()}
  tree[key] = np.concatenate([extra, tree[key]])
  torch_writer.save(tmp_path / 'old.pth', tree)
  config, params = checkpoint.load_checkpoint(tmp_path / 'old.pth')
  new_config, expected = checkpoint.load_checkpoint(TAE)
  assert config == new_config
  assert_same(params, expected)


def test_dtype_and_its_rounding():
  _, params = checkpoint.load_checkpoint(DIT, dtype='bfloat16')
  _, expected = checkpoint.load_checkpoint(HALF)
  assert_same(params, expected)
  _, params = checkpoint.load_checkpoint(HALF, dtype=np.float32)
  leaf = params['head']['head']['kernel']
  assert leaf.dtype == np.float32 and leaf.shape == (96, 64)


@pytest.mark.parametrize(
  ('config', 'tensors', 'parameters', 'layers'),
  [
    (dit.WAN_1_3B, 825, 1_418_996_800, 30),
    (dit.WAN_14B, 1095, 14_288_491_584, 40),
  ],
)
def test_every_official_key_of_the_released_models(
  config, tensors, parameters, layers
):
  wanted = specs.expected('dit', config)
  assert set(wanted) == official_keys(layers)
  assert len(wanted) == tensors
  assert sum(int(np.prod(s)) for s in wanted.values()) == parameters
  paths = {rules.path_of(key, len(s)) for key, s in wanted.items()}
  assert paths == set(rules.flatten(specs.abstract('dit', config)))
  assert specs.infer('dit', wanted, {}) == config


def official_keys(layers: int) -> set[str]:
  """Keys of a Wan2.1 text-to-video transformer."""
  both = ('weight', 'bias')
  names = [f'patch_embedding.{p}' for p in both]
  for layer in ('text_embedding', 'time_embedding'):
    names += [f'{layer}.{i}.{p}' for i in (0, 2) for p in both]
  names += [f'time_projection.1.{p}' for p in both]
  names += ['head.modulation'] + [f'head.head.{p}' for p in both]
  for n in range(layers):
    block = [f'norm3.{p}' for p in both] + ['modulation']
    for attention in ('self_attn', 'cross_attn'):
      block += [f'{attention}.{m}.{p}' for m in 'qkvo' for p in both]
      block += [f'{attention}.norm_{m}.weight' for m in 'qk']
    block += [f'ffn.{i}.{p}' for i in (0, 2) for p in both]
    names += [f'blocks.{n}.{name}' for name in block]
  return set(names)


def test_released_autoencoder_and_text_encoder():
  wanted = specs.expected('vae', vae.WAN_VAE)
  assert len(wanted) == 194
  assert specs.infer('vae', wanted, {}) == vae.WAN_VAE
  assert round(sum(np.prod(s) for s in wanted.values()) / 1e6, 1) == 126.9
  wanted = specs.expected('text', text.UMT5_XXL)
  assert len(wanted) == 242
  assert specs.infer('text', wanted, {}) == text.UMT5_XXL


@pytest.mark.parametrize(
  ('key', 'shape', 'path'),
  [
    ('blocks.3.self_attn.q.weight', (4, 5), 'blocks_3/self_attn/q/kernel'),
    ('patch_embedding.weight', (4, 3, 1, 2, 2), 'patch_embedding/kernel'),
    ('text_embedding.0.weight', (4, 5), 'text_embedding_0/kernel'),
    ('token_embedding.weight', (4, 5), 'token_embedding/embedding'),
    (
      'blocks.0.pos_embedding.embedding.weight',
      (4, 5),
      'blocks_0/pos_embedding/embedding/embedding',
    ),
    ('blocks.10.ffn.gate.0.weight', (4, 5), 'blocks_10/ffn/gate_0/kernel'),
    ('blocks.0.norm3.weight', (4,), 'blocks_0/norm3/scale'),
    ('blocks.0.modulation', (1, 6, 4), 'blocks_0/modulation'),
    ('head.head.bias', (4,), 'head/head/bias'),
    (
      'decoder.upsamples.3.resample.1.weight',
      (4, 5, 3, 3),
      'decoder/upsamples_3/resample_1/kernel',
    ),
    ('encoder.head.0.gamma', (4, 1, 1, 1), 'encoder/head_0/gamma'),
    ('encoder.middle.1.norm.gamma', (4, 1, 1), 'encoder/middle_1/norm/gamma'),
    ('decoder.3.conv.0.weight', (4, 5, 3, 3), 'decoder_3/conv_0/kernel'),
  ],
)
def test_rule_both_ways(key, shape, path):
  x = np.arange(np.prod(shape)).reshape(shape)
  ours, y = rules.to_ours(key, x)
  assert ours == path
  assert rules.shape_of(path, y.shape) == shape
  back, z = rules.to_official(path, y)
  assert back == key
  np.testing.assert_array_equal(z, x)


def test_lora_merged_equals_the_published_merge():
  reference = golden.load('lora/inputs_outputs.npz')
  _, params = checkpoint.load_checkpoint(DIT, lora=LORA, lora_alpha=8)
  for path in ('blocks_0/self_attn/q/kernel', 'blocks_1/ffn_2/kernel'):
    key, x = rules.to_official(path, rules.flatten(params)[path])
    golden.assert_close(x, reference[f'merged.{key}'])


@pytest.mark.parametrize('scan', [False, True])
def test_lora_kept_apart_and_merged_give_the_published_output(scan):
  reference = golden.load('lora/inputs_outputs.npz')
  config, base = checkpoint.load_checkpoint(DIT)
  _, merged = checkpoint.load_checkpoint(DIT, lora=LORA, lora_alpha=8)
  strength, adapter = checkpoint.load_checkpoint(LORA, lora_alpha=8)
  assert (strength.rank, strength.scale) == (4, 2.0)
  if scan:
    base, merged, adapter = map(stack_layers, (base, merged, adapter))
  x = np.moveaxis(reference['t2v.x'], 0, -1)[None]
  rows = reference['t2v.context'][None]
  model = dit.DiT(config, scan=scan)

  @jax.jit
  def run(params):
    t = np.broadcast_to(reference['t2v.t'], (1,))
    return model.apply({'params': params}, x, t, rows)[0]

  def kept(base, adapter):
    return run(lora.merge(base, adapter, strength.scale))

  with jax.default_matmul_precision('highest'):
    for params, name in ((merged, 'out'), (base, 'out_base')):
      out = np.moveaxis(np.asarray(run(params))[0], -1, 0)
      golden.assert_close(out, reference[f't2v.{name}'])
    out = jax.jit(kept)(base, adapter)
    golden.assert_close(np.moveaxis(out[0], -1, 0), reference['t2v.out'])


def test_lora_bare_and_with_adapter_name(tmp_path):
  tree = dict(torch_file.load(LORA)['generator_lora'])
  tree = {
    k.replace('lora_A.weight', 'lora_A.default.weight'): np.array(x)
    for k, x in tree.items()
  }
  torch_writer.save(tmp_path / 'x.pt', tree)
  config, adapter = checkpoint.load_checkpoint(tmp_path / 'x.pt')
  assert config == lora.LoRAConfig(rank=4, alpha=4.0)
  assert_same(adapter, checkpoint.load_checkpoint(LORA)[1])


def test_bfloat16_lora_merge_rounds_once(tmp_path):
  _, base = checkpoint.load_checkpoint(HALF)
  config, adapter = checkpoint.load_checkpoint(LORA)
  merged = lora.merge(base, adapter, config.scale)
  a = adapter['blocks_0']['ffn_0']
  exact = base['blocks_0']['ffn_0']['kernel'].astype(np.float32)
  exact = exact + a['lora_A']['kernel'] @ a['lora_B']['kernel']
  np.testing.assert_array_equal(
    merged['blocks_0']['ffn_0']['kernel'], exact.astype(ml_dtypes.bfloat16)
  )


def test_detect():
  assert names.detect(official_keys(30)) == 'dit'
  assert names.detect(['a.weight', 'b.bias']) is None
  assert names.detect(torch_file.load(TEXT)) == 'text'
