"""Checkpoints that do not fit are refused in one line that names why."""

import json
import shutil

import golden
import numpy as np
import pytest
import torch_writer
from safetensors import numpy as safetensors

from jaxvid.convert import checkpoint, safetensors_file, torch_file
from jaxvid.errors import UserError
from jaxvid.models import dit, text

DIT = golden.path('dit/diffusion_pytorch_model.safetensors')
LORA = golden.path('lora/lora.pt')
NAME = 'diffusion_pytorch_model.safetensors'


@pytest.fixture
def folder(tmp_path):
  """A folder with the settings of the golden transformer."""
  shutil.copy(golden.path('dit/config.json'), tmp_path)
  return tmp_path


@pytest.fixture
def tensors():
  return safetensors.load_file(DIT)


def refuse(path, match, **options) -> str:
  """Loads `path`, which must fail in one line; returns the line."""
  with pytest.raises(UserError, match=match) as error:
    checkpoint.load_checkpoint(path, **options)
  assert '\n' not in str(error.value)
  return str(error.value)


def save(folder, tensors):
  safetensors.save_file(tensors, folder / NAME)
  return folder / NAME


def test_every_sort_of_misfit_is_named(folder, tensors):
  del tensors['blocks.1.norm3.bias'], tensors['head.head.bias']
  tensors['img_emb.proj.0.weight'] = np.zeros(3, np.float32)
  tensors['blocks.0.ffn.2.bias'] = np.zeros(95, np.float32)
  tensors['blocks.0.ffn.0.bias'] = np.zeros(192, np.int64)
  line = refuse(save(folder, tensors), '2 missing')
  assert '2 missing: ' in line and 'blocks.1.norm3.bias' in line
  assert 'head.head.bias' in line
  assert '1 unknown: img_emb.proj.0.weight' in line
  assert 'blocks.0.ffn.2.bias is (95,), not (96,)' in line
  assert 'blocks.0.ffn.0.bias is int64' in line


def test_long_lists_are_cut_and_counted(folder, tensors):
  tensors |= {f'extra.{i}': np.zeros(1, np.float32) for i in range(30)}
  line = refuse(save(folder, tensors), '30 unknown: extra')
  assert len(line) < 400 and line.endswith('...')


@pytest.mark.parametrize(
  'key',
  [
    'patch_embedding.weight',
    'blocks.0.ffn.0.weight',
    'time_embedding.0.weight',
    'head.head.weight',
    'blocks.1.self_attn.norm_q.weight',
  ],
)
def test_a_missing_key_is_named(folder, tensors, key):
  del tensors[key]
  refuse(save(folder, tensors), f'{key}')


def test_missing_last_block(folder, tensors):
  kept = {k: x for k, x in tensors.items() if not k.startswith('blocks.1.')}
  refuse(save(folder, kept), 'it has 1 blocks, the model has 2')
  tensors['blocks.7.modulation'] = tensors['blocks.0.modulation']
  refuse(save(folder, tensors), '8 blocks|missing')


def test_number_of_heads_must_be_known(tmp_path, tensors):
  file = save(tmp_path, tensors)
  refuse(file, 'number of heads')
  config = dit.DiTConfig(96, 192, 2, 2, 256, 32, 16)
  assert checkpoint.load_checkpoint(file, config=config)[0] == config
  wrong = dit.DiTConfig(96, 192, 2, 3, 256, 32, 16)
  refuse(file, '27 missing: blocks.2', config=wrong)
  refuse(file, 'of another', config=text.UMT5_XXL)


def test_foreign_checkpoints(folder):
  tensors = {
    'conv1.weight': np.zeros((2, 2), np.float32),
    'fc.bias': np.ones(1),
  }
  refuse(save(folder, tensors), 'not a checkpoint of a known model .*fc.bias')
  refuse(DIT, 'it is a diffusion transformer, not a Wan VAE', kind='vae')
  refuse(LORA, 'it is a LoRA adapter, not a diffusion', kind='dit')
  refuse(DIT, "unknown kind 'ditt'", kind='ditt')


def test_files_that_are_not_there_or_no_checkpoints(tmp_path):
  refuse(tmp_path / 'x.safetensors', 'no such file')
  refuse(tmp_path / 'x', 'no such file')
  refuse(tmp_path, 'cannot find a checkpoint')
  refuse(tmp_path, 'cannot find a vae checkpoint', kind='vae')
  (tmp_path / 'x.txt').write_text('hi')
  refuse(tmp_path / 'x.txt', 'no checkpoint file')
  for name in ('a.pt', 'b.pt'):
    torch_writer.save(tmp_path / name, {'a': np.zeros(1, np.float32)})
  refuse(tmp_path, r'a\.pt, b\.pt')


def test_truncated_and_damaged_safetensors(folder):
  whole = DIT.read_bytes()
  file = folder / NAME
  for size in (0, 4, 8, 100, 5000, len(whole) // 2, len(whole) - 1):
    file.write_bytes(whole[:size])
    refuse(file, 'cannot read')
  file.write_bytes(b'<html>not found</html>' * 100)
  refuse(file, 'cannot read')
  for header in (
    '[]',
    '{"a": 3}',
    '{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
    '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
    '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
    '[' * 100_000,
  ):
    text = header.encode()
    size = len(text).to_bytes(8, 'little')
    file.write_bytes(size + text + b'\0' * 8)
    refuse(file, 'cannot read')


def test_shards(folder, tensors):
  names = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
  keys = list(tensors)
  for name, part in zip(names, (keys[:30], keys[30:]), strict=True):
    safetensors.save_file({k: tensors[k] for k in part}, folder / name)
  checkpoint.load_checkpoint(folder / names[0])
  index = {k: names[0] if k in keys[:30] else names[1] for k in keys}
  listing = folder / 'model.safetensors.index.json'

  def write(values):
    listing.write_text(json.dumps({'weight_map': values}))

  write(index | {'x.weight': names[1]})
  refuse(listing, r'lacks x\.weight, which the index promises')
  write(index | {keys[0]: '../other.safetensors'})
  refuse(listing, 'outside its folder')
  listing.write_text('{')
  refuse(listing, 'cannot read')
  write({})
  refuse(listing, 'no weight_map')
  listing.unlink()
  safetensors.save_file({keys[0]: tensors[keys[0]]}, folder / names[1])
  refuse(folder / names[0], 'repeats')
  (folder / names[1]).unlink()
  refuse(folder / names[0], f'1 of 2 files are missing .*{names[1]}')


def test_torch_entries(folder, tensors):
  file = folder / 'x.pt'
  torch_writer.save(file, {'generator': tensors})
  refuse(file, 'holds generator, but none of generator_ema', use_ema=True)
  torch_writer.save(file, {'generator_ema': tensors})
  refuse(file, 'holds generator_ema, but none of', use_ema=False)
  torch_writer.save(file, tensors)
  refuse(file, 'no separate EMA', use_ema=True)
  torch_writer.save(file, {'critic': tensors})
  refuse(file, 'holds critic, but none of')
  torch_writer.save(file, {'generator': tensors, 'surprise': tensors})
  refuse(file, "unknown entry 'surprise'")
  torch_writer.save(file, {'generator': tensors | {'deep': {'a': [1]}}})
  refuse(file, "'deep' is a dict, not a tensor")
  torch_writer.save(file, [1, 2])
  refuse(file, 'holds a list')
  torch_writer.save(file, {'epoch': 3})
  refuse(file, 'holds no tensors')
  torch_writer.save(
    file, {f'model.{k}': x for k, x in tensors.items()} | tensors
  )
  refuse(file, r'model\.blocks.* are both blocks')


def test_wrappers_must_not_hide_a_tensor(folder, tensors):
  twice = tensors | {'_orig_mod.head.head.bias': tensors['head.head.bias']}
  refuse(save(folder, twice), 'head.head.bias and .* are both head.head.bias')


def test_bad_settings(folder, tensors):
  file = save(folder, tensors)
  (folder / 'config.json').write_text('{"num_heads": ')
  refuse(file, r'cannot read .*config\.json')
  (folder / 'config.json').write_text('[1]')
  refuse(file, 'not a JSON object')


def test_bad_adapters(tmp_path):
  pairs = {
    k: np.array(x) for k, x in torch_file.load(LORA)['generator_lora'].items()
  }
  first = 'base_model.model.blocks.0.self_attn.q'
  file = tmp_path / 'lora.pt'

  def save_pairs(values):
    torch_writer.save(file, values)

  values = dict(pairs)
  del values[f'{first}.lora_B.weight']
  save_pairs(values)
  refuse(file, r'blocks.0.self_attn.q.lora_B.weight is missing')
  save_pairs(pairs | {'base_model.model.head.bias': np.zeros(2, np.float32)})
  refuse(file, 'head.bias is not part of a LoRA')
  save_pairs(pairs | {f'{first}.lora_A.weight': np.zeros((3, 96), np.float32)})
  refuse(file, r'ranks differ: \[3, 4\]')
  values = {k.replace('blocks.1', 'blocks.5'): x for k, x in pairs.items()}
  save_pairs(values)
  refuse(DIT, 'the model has no blocks.5', lora=file)
  values = {
    k: np.zeros((4, 90), np.float32) if k.endswith('q.lora_A.weight') else x
    for k, x in pairs.items()
  }
  save_pairs(values)
  refuse(DIT, r'its adapter \(90, 96\)', lora=file)
  refuse(golden.path('wan_vae/Wan2.1_VAE.pth'), 'belongs to', lora=LORA)
  refuse(DIT, 'it is a diffusion', lora=DIT)


def test_unwritable_target(tmp_path):
  file = tmp_path / 'taken'
  file.write_text('mine')
  with pytest.raises(UserError, match='cannot write'):
    safetensors_file.save(file / 'x.safetensors', {'a': np.zeros(1)})
  assert file.read_text() == 'mine'


def test_nothing_half_written(tmp_path):
  """A failing tensor leaves neither the file nor its temporary."""

  class Broken:
    shape, dtype = (3,), np.dtype(np.float32)

    def __array__(self, dtype=None, copy=None):
      raise OSError(28, 'No space left on device')

  (tmp_path / 'x.safetensors').write_text('old')
  tensors = {'a': np.zeros(5), 'b': Broken()}
  with pytest.raises(UserError, match='No space left'):
    safetensors_file.save(tmp_path / 'x.safetensors', tensors)
  assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']
  assert (tmp_path / 'x.safetensors').read_text() == 'old'
