"""diffusers and transformers folders give the same parameters."""

import json
import re
import shutil

import golden
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxvid.convert import checkpoint, rules, torch_file
from jaxvid.errors import UserError


def dit_key(key: str) -> str:
  """Official -> diffusers, transformer."""
  for a, b in (
    ('time_embedding.0', 'condition_embedder.time_embedder.linear_1'),
    ('time_embedding.2', 'condition_embedder.time_embedder.linear_2'),
    ('text_embedding.0', 'condition_embedder.text_embedder.linear_1'),
    ('text_embedding.2', 'condition_embedder.text_embedder.linear_2'),
    ('time_projection.1', 'condition_embedder.time_proj'),
    ('head.modulation', 'scale_shift_table'),
    ('head.head', 'proj_out'),
    ('self_attn', 'attn1'),
    ('cross_attn', 'attn2'),
    ('.modulation', '.scale_shift_table'),
    ('ffn.0', 'ffn.net.0.proj'),
    ('ffn.2', 'ffn.net.2'),
    ('norm3', 'norm2'),
    ('.o.', '.to_out.0.'),
  ):
    key = key.replace(a, b)
  return re.sub(r'\.([qkv])\.', r'.to_\1.', key)


def vae_key(key: str) -> str:
  """Official -> diffusers, autoencoder."""
  key = re.sub(r'^conv1\.', 'quant_conv.', key)
  key = re.sub(r'^conv2\.', 'post_quant_conv.', key)
  for a, b in (
    ('residual.0.', 'norm1.'),
    ('residual.2.', 'conv1.'),
    ('residual.3.', 'norm2.'),
    ('residual.6.', 'conv2.'),
    ('shortcut', 'conv_shortcut'),
    ('middle.0', 'mid_block.resnets.0'),
    ('middle.1', 'mid_block.attentions.0'),
    ('middle.2', 'mid_block.resnets.1'),
    ('head.0.', 'norm_out.'),
    ('head.2.', 'conv_out.'),
    ('downsamples', 'down_blocks'),
  ):
    key = key.replace(a, b)
  key = re.sub(r'^(encoder|decoder)\.conv1\.', r'\1.conv_in.', key)

  def up(match):
    block, place = divmod(int(match[1]), 4)
    inner = 'upsamplers.0' if place == 3 else f'resnets.{place}'
    return f'up_blocks.{block}.{inner}'

  return re.sub(r'upsamples\.(\d+)', up, key)


def text_key(key: str) -> str:
  """Official -> transformers, text encoder."""
  for pattern, name in (
    (r'^token_embedding', 'shared'),
    (r'^norm\.', 'encoder.final_layer_norm.'),
    (r'^blocks\.(\d+)', r'encoder.block.\1.layer'),
    (r'\.norm1', '.0.layer_norm'),
    (r'\.norm2', '.1.layer_norm'),
    (r'\.attn', '.0.SelfAttention'),
    (
      r'\.pos_embedding\.embedding',
      '.0.SelfAttention.relative_attention_bias',
    ),
    (r'\.ffn\.gate\.0', '.1.DenseReluDense.wi_0'),
    (r'\.ffn\.fc1', '.1.DenseReluDense.wi_1'),
    (r'\.ffn\.fc2', '.1.DenseReluDense.wo'),
  ):
    key = re.sub(pattern, name, key)
  return key


PARTS = {
  'transformer': (
    'dit/diffusion_pytorch_model.safetensors',
    dit_key,
    'diffusion_pytorch_model.safetensors',
  ),
  'vae': (
    'wan_vae/Wan2.1_VAE.pth',
    vae_key,
    'diffusion_pytorch_model.safetensors',
  ),
  'text_encoder': (
    'umt5/models_t5_umt5-tiny-enc-bf16.pth',
    text_key,
    'model.safetensors',
  ),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A diffusers pipeline folder with the golden weights."""
  root = tmp_path_factory.mktemp('diffusers')
  for part, (source, rename, file) in PARTS.items():
    path = golden.path(source)
    if path.suffix == '.pth':
      tensors = torch_file.load(path)
    else:
      tensors = safetensors.load_file(path)
    tensors = {rename(k): np.ascontiguousarray(x) for k, x in tensors.items()}
    (root / part).mkdir()
    safetensors.save_file(tensors, root / part / file)
  config = {'num_attention_heads': 2, 'attention_head_dim': 48, 'num_layers': 2}
  (root / 'transformer' / 'config.json').write_text(json.dumps(config))
  config = {'latents_mean': [0.5] * 16, 'latents_std': [2.0] * 16}
  (root / 'vae' / 'config.json').write_text(json.dumps(config))
  return root


@pytest.mark.parametrize(
  ('kind', 'part'),
  [
    ('dit', 'transformer'),
    (None, 'transformer'),
    ('vae', 'vae'),
    ('text', 'text_encoder'),
  ],
)
def test_same_parameters_as_the_official_file(folder, kind, part):
  config, params = checkpoint.load_checkpoint(folder, kind)
  again, _ = checkpoint.load_checkpoint(folder / part)
  assert again == config
  _, expected = checkpoint.load_checkpoint(golden.path(PARTS[part][0]))
  params, expected = rules.flatten(params), rules.flatten(expected)
  assert params.keys() == expected.keys()
  for name in expected:
    np.testing.assert_array_equal(params[name], expected[name], err_msg=name)


def test_settings_of_the_folder_count(folder):
  assert checkpoint.load_checkpoint(folder, 'dit')[0].num_heads == 2
  config, _ = checkpoint.load_checkpoint(folder, 'vae')
  assert config.latent_mean == (0.5,) * 16
  assert config.latent_std == (2.0,) * 16


def test_tied_embedding_must_be_a_copy(folder, tmp_path):
  file = tmp_path / 'model.safetensors'
  shutil.copy(folder / 'text_encoder' / 'model.safetensors', file)
  tensors = safetensors.load_file(file)
  embedding = tensors['shared.weight']
  tensors['encoder.embed_tokens.weight'] = embedding.copy()
  safetensors.save_file(tensors, file)
  config, _ = checkpoint.load_checkpoint(tmp_path)
  assert config.vocab_size == len(embedding)
  tensors['encoder.embed_tokens.weight'][3, 4] += 1
  safetensors.save_file(tensors, file)
  with pytest.raises(UserError, match='should be equal and are not'):
    checkpoint.load_checkpoint(tmp_path)


def test_norms_are_exchanged(folder):
  file = folder / 'transformer' / 'diffusion_pytorch_model.safetensors'
  tensors = safetensors.load_file(file)
  assert 'blocks.0.norm2.weight' in tensors
  assert 'blocks.0.norm3.weight' not in tensors
  _, params = checkpoint.load_checkpoint(file.parent)
  np.testing.assert_array_equal(
    params['blocks_0']['norm3']['scale'], tensors['blocks.0.norm2.weight']
  )
