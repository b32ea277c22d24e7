"""Recognises a checkpoint by its keys and gives them their official names."""

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxvid.errors import UserError
from jaxvid.storage import mapped

Rename = Callable[[str], str]

# What training wrappers put inside keys, anywhere (FSDP, activation
# checkpointing, torch.compile), and in front of all of them.
_INFIXES = re.compile(
  r'(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.'
)
_PREFIXES = ('model.diffusion_model.', 'diffusion_model.', 'model.', '')
# Heads that adversarial training runs store beside the generator.
_GAN = re.compile(
  r'(?:model\.)?_(?:cls_pred_branch|register_tokens|gan_ca_blocks)\b'
)

# One key that only this kind and layout has.
_MARKS = {
  'dit': 'blocks.0.self_attn.q.weight',
  'dit (diffusers)': 'condition_embedder.time_proj.weight',
  'text': 'blocks.0.pos_embedding.embedding.weight',
  'text (transformers)': 'encoder.block.0.layer.0.SelfAttention.q.weight',
  'vae': 'encoder.downsamples.0.residual.2.weight',
  'vae (diffusers)': 'encoder.down_blocks.0.conv1.weight',
  'tae': 'decoder.3.conv.0.weight',
}
NAMES = {
  'dit': 'a diffusion transformer',
  'text': 'a UMT5 text encoder',
  'vae': 'a Wan VAE',
  'tae': 'a tiny autoencoder',
  'lora': 'a LoRA adapter',
}

_DIT = (
  (r'^condition_embedder\.time_embedder\.linear_1\.', 'time_embedding.0.'),
  (r'^condition_embedder\.time_embedder\.linear_2\.', 'time_embedding.2.'),
  (r'^condition_embedder\.text_embedder\.linear_1\.', 'text_embedding.0.'),
  (r'^condition_embedder\.text_embedder\.linear_2\.', 'text_embedding.2.'),
  (r'^condition_embedder\.time_proj\.', 'time_projection.1.'),
  (r'^fps_projection\.net\.0\.proj\.', 'fps_projection.0.'),
  (r'^fps_projection\.net\.2\.', 'fps_projection.2.'),
  (r'^scale_shift_table$', 'head.modulation'),
  (r'^proj_out\.', 'head.head.'),
  (r'^(blocks\.\d+)\.scale_shift_table$', r'\1.modulation'),
  (r'^(blocks\.\d+)\.attn1\.', r'\1.self_attn.'),
  (r'^(blocks\.\d+)\.attn2\.', r'\1.cross_attn.'),
  (r'^(blocks\.\d+\.\w+_attn)\.to_([qkv])\.', r'\1.\2.'),
  (r'^(blocks\.\d+\.\w+_attn)\.to_out\.0\.', r'\1.o.'),
  (r'^(blocks\.\d+)\.ffn\.net\.0\.proj\.', r'\1.ffn.0.'),
  (r'^(blocks\.\d+)\.ffn\.net\.2\.', r'\1.ffn.2.'),
  # The two libraries number the norms differently; a plain exchange.
  (r'^(blocks\.\d+)\.norm2\.', r'\1.norm-.'),
  (r'^(blocks\.\d+)\.norm3\.', r'\1.norm2.'),
  (r'^(blocks\.\d+)\.norm-\.', r'\1.norm3.'),
)
_TEXT = (
  (r'^(?:shared|encoder\.embed_tokens)\.', 'token_embedding.'),
  (r'^encoder\.final_layer_norm\.', 'norm.'),
  (r'^encoder\.block\.(\d+)\.layer\.', r'blocks.\1.'),
  (r'^(blocks\.\d+)\.0\.layer_norm\.', r'\1.norm1.'),
  (r'^(blocks\.\d+)\.1\.layer_norm\.', r'\1.norm2.'),
  (
    r'^(blocks\.\d+)\.0\.SelfAttention\.relative_attention_bias\.',
    r'\1.pos_embedding.embedding.',
  ),
  (r'^(blocks\.\d+)\.0\.SelfAttention\.', r'\1.attn.'),
  (r'^(blocks\.\d+)\.1\.DenseReluDense\.wi_0\.', r'\1.ffn.gate.0.'),
  (r'^(blocks\.\d+)\.1\.DenseReluDense\.wi_1\.', r'\1.ffn.fc1.'),
  (r'^(blocks\.\d+)\.1\.DenseReluDense\.wo\.', r'\1.ffn.fc2.'),
)
_RESIDUAL = r'((?:\.middle\.\d+|\.downsamples\.\d+|\.upsamples\.\d+))'
_VAE = (
  (r'^quant_conv\.', 'conv1.'),
  (r'^post_quant_conv\.', 'conv2.'),
  (r'^(encoder|decoder)\.conv_in\.', r'\1.conv1.'),
  (r'^(encoder|decoder)\.norm_out\.', r'\1.head.0.'),
  (r'^(encoder|decoder)\.conv_out\.', r'\1.head.2.'),
  (r'\.mid_block\.resnets\.0\.', '.middle.0.'),
  (r'\.mid_block\.attentions\.0\.', '.middle.1.'),
  (r'\.mid_block\.resnets\.1\.', '.middle.2.'),
  (r'^encoder\.down_blocks\.', 'encoder.downsamples.'),
  (_RESIDUAL + r'\.norm1\.', r'\1.residual.0.'),
  (_RESIDUAL + r'\.conv1\.', r'\1.residual.2.'),
  (_RESIDUAL + r'\.norm2\.', r'\1.residual.3.'),
  (_RESIDUAL + r'\.conv2\.', r'\1.residual.6.'),
  (_RESIDUAL + r'\.conv_shortcut\.', r'\1.shortcut.'),
)
_UP = re.compile(r'^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.')


def detect(keys: Iterable[str]) -> str | None:
  """What a checkpoint holds: 'dit', 'vae', 'tae', 'text', 'lora' or None."""
  layout = _layout(unwrap(keys))
  return layout.partition(' ')[0] if layout else None


def unwrap(keys: Iterable[str]) -> dict[str, str]:
  """Each key -> the key without what training wrappers added.

  Keys of adversarial heads are left out. Two keys with one result are an
  error; keys without the common prefix keep their names (and will be
  reported as unknown).
  """
  bare = {k: _INFIXES.sub('', k) for k in keys}
  bare = {k: name for k, name in bare.items() if not _GAN.match(name)}
  marks = tuple(_MARKS.values())
  names = set(bare.values())
  prefix = next(
    (p for p in _PREFIXES if any(p + mark in names for mark in marks)), ''
  )
  bare = {k: name.removeprefix(prefix) for k, name in bare.items()}
  _all_different(bare)
  return bare


def official(tensors: Mapping[str, np.ndarray]) -> tuple[str, dict]:
  """Kind of a checkpoint, and its tensors by official key.

  Args:
    tensors: by the file's own keys, in any known layout.

  Raises:
    UserError: not a known kind of checkpoint, or a tensor occurs twice.
  """
  bare = unwrap(tensors)
  layout = _layout(bare)
  if layout is None:
    some = ', '.join(list(tensors)[:3])
    raise UserError(
      f'not a checkpoint of a known model ({len(tensors)} tensors: {some}, ...)'
    )
  if layout == 'text (transformers)':
    bare = _without_tied(bare, tensors)
  rename = _renames(layout, bare.values())
  renamed = {k: rename(name) for k, name in bare.items()}
  _all_different(renamed)
  kind = layout.partition(' ')[0]
  return kind, {name: tensors[k] for k, name in renamed.items()}


def _layout(bare: Mapping[str, str]) -> str | None:
  names = set(bare.values())
  if any(re.search(r'\.lora_[AB]\.', name) for name in names):
    return 'lora'
  found = [layout for layout, mark in _MARKS.items() if mark in names]
  return found[0] if found else None


def _renames(layout: str, names: Iterable[str]) -> Rename:
  """The function from this layout's keys to official ones."""
  tables = {
    'dit (diffusers)': _DIT,
    'text (transformers)': _TEXT,
    'vae (diffusers)': _VAE,
  }
  table = tables.get(layout, ())
  flat_up = _up_blocks(names) if layout == 'vae (diffusers)' else None

  def rename(name: str) -> str:
    if flat_up:
      name = flat_up(name)
    for pattern, replacement in table:
      name = re.sub(pattern, replacement, name)
    return name

  return rename


def _up_blocks(names: Iterable[str]) -> Rename:
  """diffusers nests what official files number through."""
  found = [m for m in map(_UP.match, names) if m]
  sizes = [int(m[3]) + 1 for m in found if m[2] == 'resnets']
  resnets = max(sizes, default=0)

  def flat(match: re.Match) -> str:
    place = int(match[3]) if match[2] == 'resnets' else resnets
    return f'decoder.upsamples.{int(match[1]) * (resnets + 1) + place}.'

  return lambda name: _UP.sub(flat, name)


def _without_tied(bare: dict[str, str], tensors) -> dict[str, str]:
  """Drops the second copy of the token embedding, if it is a copy."""
  keys = {name: k for k, name in bare.items()}
  first = keys.get('shared.weight')
  second = keys.get('encoder.embed_tokens.weight')
  if first is None or second is None:
    return bare
  if not mapped.equal(tensors[first], tensors[second]):
    raise UserError(f'{first} and {second} should be equal and are not')
  return {k: name for k, name in bare.items() if k != second}


def _all_different(names: Mapping[str, str]) -> None:
  seen: dict[str, str] = {}
  for key, name in names.items():
    if name in seen:
      raise UserError(f'{seen[name]} and {key} are both {name}')
    seen[name] = key
