"""Learned scorers from local weights: DINO, CLIP and the LAION head.

A folder is searched for files by name, at any depth, in the layouts of the
original releases, open_clip and transformers:

| scorer | file | layout |
|---|---|---|
| subject | dino*vit*b*16* | DINO's release, or a folder of transformers |
| background | *vit-b*32*, *base-patch32* | open_clip or transformers |
| aesthetic | *vit-l*14*, *large-patch14* and sa_0_4_vit_l_14_linear* | same |

OpenAI's own CLIP files are TorchScript programs, which the reader refuses;
the same weights exist as safetensors.
"""

import functools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvid.errors import UserError
from jaxvid.evaluation import resize
from jaxvid.models import vision

SIDE = 224
LONGEST = 3 * SIDE  # of a picture that is longer than it is wide
SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin')
_FILES = {
  'subject': re.compile(r'dino.*vit.?b.*16'),
  'background': re.compile(r'vit.?b.*32|base.patch32'),
  'clip_l': re.compile(r'vit.?l.?14(?!.*linear)|large.patch14'),
  'head': re.compile(r'sa_0_4_vit_l_14_linear'),
}
_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
_DINO_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DINO_STD = np.array([0.229, 0.224, 0.225], np.float32)

Scorer = Callable[[Sequence[np.ndarray]], np.ndarray]
# File -> its tensors by name: formats are none of our business here.
ReadTensors = Callable[[pathlib.Path], Mapping[str, np.ndarray]]

# Names in files -> ours; I stands for a block's number.
_LAYOUTS: dict[str, dict[str, str]] = {
  'visual.conv1.weight': {  # OpenAI, open_clip
    'visual.class_embedding': 'class',
    'visual.positional_embedding': 'position',
    'visual.conv1.weight': 'patch.weight',
    'visual.ln_pre': 'pre',
    'visual.ln_post': 'norm',
    'visual.proj': 'project',
    'visual.transformer.resblocks.I.ln_1': 'blocks.I.norm1',
    'visual.transformer.resblocks.I.ln_2': 'blocks.I.norm2',
    'visual.transformer.resblocks.I.attn.in_proj_weight': 'blocks.I.qkv.weight',
    'visual.transformer.resblocks.I.attn.in_proj_bias': 'blocks.I.qkv.bias',
    'visual.transformer.resblocks.I.attn.out_proj': 'blocks.I.out',
    'visual.transformer.resblocks.I.mlp.c_fc': 'blocks.I.fc1',
    'visual.transformer.resblocks.I.mlp.c_proj': 'blocks.I.fc2',
  },
  'vision_model.embeddings.class_embedding': {  # transformers, CLIP
    'vision_model.embeddings.class_embedding': 'class',
    'vision_model.embeddings.position_embedding.weight': 'position',
    'vision_model.embeddings.patch_embedding.weight': 'patch.weight',
    'vision_model.pre_layrnorm': 'pre',
    'vision_model.post_layernorm': 'norm',
    'visual_projection.weight': 'project.T',
    'vision_model.encoder.layers.I.layer_norm1': 'blocks.I.norm1',
    'vision_model.encoder.layers.I.layer_norm2': 'blocks.I.norm2',
    'vision_model.encoder.layers.I.self_attn.q_proj': 'blocks.I.q',
    'vision_model.encoder.layers.I.self_attn.k_proj': 'blocks.I.k',
    'vision_model.encoder.layers.I.self_attn.v_proj': 'blocks.I.v',
    'vision_model.encoder.layers.I.self_attn.out_proj': 'blocks.I.out',
    'vision_model.encoder.layers.I.mlp.fc1': 'blocks.I.fc1',
    'vision_model.encoder.layers.I.mlp.fc2': 'blocks.I.fc2',
  },
  'patch_embed.proj.weight': {  # DINO
    'cls_token': 'class',
    'pos_embed': 'position',
    'patch_embed.proj': 'patch',
    'norm': 'norm',
    'blocks.I.norm1': 'blocks.I.norm1',
    'blocks.I.norm2': 'blocks.I.norm2',
    'blocks.I.attn.qkv': 'blocks.I.qkv',
    'blocks.I.attn.proj': 'blocks.I.out',
    'blocks.I.mlp.fc1': 'blocks.I.fc1',
    'blocks.I.mlp.fc2': 'blocks.I.fc2',
  },
  'embeddings.cls_token': {  # transformers, ViT
    'embeddings.cls_token': 'class',
    'embeddings.position_embeddings': 'position',
    'embeddings.patch_embeddings.projection': 'patch',
    'layernorm': 'norm',
    'encoder.layer.I.layernorm_before': 'blocks.I.norm1',
    'encoder.layer.I.layernorm_after': 'blocks.I.norm2',
    'encoder.layer.I.attention.attention.query': 'blocks.I.q',
    'encoder.layer.I.attention.attention.key': 'blocks.I.k',
    'encoder.layer.I.attention.attention.value': 'blocks.I.v',
    'encoder.layer.I.attention.output.dense': 'blocks.I.out',
    'encoder.layer.I.intermediate.dense': 'blocks.I.fc1',
    'encoder.layer.I.output.dense': 'blocks.I.fc2',
  },
}


def find(
  folder: str | pathlib.Path, read_tensors: ReadTensors
) -> dict[str, Scorer]:
  """The scorers whose weights a folder holds, by metric.

  Args:
    folder: of the weights.
    read_tensors: reads a file.

  Raises:
    UserError: no such folder, none of the weights, or damaged ones.
  """
  folder = pathlib.Path(folder).expanduser()
  if not folder.is_dir():
    raise UserError(f'weights: {folder} is not a folder')
  paths = {kind: _find(folder, pattern) for kind, pattern in _FILES.items()}
  result: dict[str, Scorer] = {}
  if path := paths['subject']:
    result['subject'] = embedder(
      vision.DINO, read(path, read_tensors), 'DINO ViT-B/16'
    )
  if path := paths['background']:
    result['background'] = embedder(
      vision.CLIP, read(path, read_tensors), 'CLIP ViT-B/32'
    )
  if paths['clip_l'] and paths['head']:
    clip = embedder(
      vision.CLIP, read(paths['clip_l'], read_tensors), 'CLIP ViT-L/14'
    )
    head = read_tensors(paths['head'])
    result['aesthetic'] = aesthetic(clip, head)
  if not result:
    raise UserError(
      f'weights: {folder} holds none that is known; see docs/lv_bench.md'
    )
  return result


def _find(folder: pathlib.Path, pattern: re.Pattern) -> pathlib.Path | None:
  """The first weight file whose path matches, safetensors first."""
  found = [
    path
    for path in folder.rglob('*')
    if path.suffix in SUFFIXES
    and pattern.search(path.relative_to(folder).as_posix().lower())
  ]
  order = {suffix: i for i, suffix in enumerate(SUFFIXES)}
  return min(found, key=lambda p: (order[p.suffix], str(p)), default=None)


def read(
  path: pathlib.Path, read_tensors: ReadTensors
) -> dict[str, np.ndarray]:
  """A vision transformer's tensors by our names, float32.

  Raises:
    UserError: no layout that is known, or tensors missing.
  """
  tensors = read_tensors(path)
  tensors = {re.sub(r'^(vit|model)\.', '', k): v for k, v in tensors.items()}
  names = next((_LAYOUTS[key] for key in _LAYOUTS if key in tensors), None)
  if names is None:
    raise UserError(f'{path} holds no vision transformer that is known')
  found = {}
  for name, value in tensors.items():
    if new := _renamed(name, names):
      found[new] = np.asarray(value, np.float32)
  _arrange(found)
  wanted = {'class', 'position', 'patch.weight', 'norm.weight', 'norm.bias'}
  for i in range(vision.depth(found)):
    wanted |= {
      f'blocks.{i}.{part}.{kind}'
      for part in ('norm1', 'norm2', 'qkv', 'out', 'fc1', 'fc2')
      for kind in ('weight', 'bias')
    }
  if missing := sorted(wanted - found.keys()):
    raise UserError(f'{path} lacks {", ".join(missing[:3])}')
  return found


def _renamed(name: str, names: Mapping[str, str]) -> str:
  """Our name of a tensor; '' for those that are not needed."""
  number = re.search(r'(?<=\.)\d+(?=\.)', name)
  plain = re.sub(r'(?<=\.)\d+(?=\.)', 'I', name, count=1)
  stem, _, kind = plain.rpartition('.')
  new = names.get(plain) or (f'{names[stem]}.{kind}' if stem in names else '')
  return new.replace('.I.', f'.{number[0]}.') if number else new


def _arrange(found: dict[str, np.ndarray]) -> None:
  """Joins queries, keys and values; drops leading axes of one."""
  for name in [name for name in found if '.q.' in name]:
    parts = [name.replace('.q.', f'.{part}.') for part in 'qkv']
    joined = [found.pop(part) for part in parts if part in found]
    if len(joined) == 3:
      found[name.replace('.q.', '.qkv.')] = np.concatenate(joined)
  if 'project.T' in found:
    found['project'] = found.pop('project.T').T
  for name in ('class', 'position'):
    if name in found:
      found[name] = found[name].squeeze()


def embedder(
  config: vision.VisionConfig, tensors: dict[str, np.ndarray], name: str
) -> Scorer:
  """Frames -> embeddings, prepared as the released benchmark does."""
  encode = jax.jit(functools.partial(vision.encode, config))
  placed = {key: jax.numpy.asarray(value) for key, value in tensors.items()}
  clip, patch = config is vision.CLIP, tensors['patch.weight'].shape[-1]
  mean, std = (_CLIP_MEAN, _CLIP_STD) if clip else (_DINO_MEAN, _DINO_STD)

  def scorer(images: Sequence[np.ndarray]) -> np.ndarray:
    rows = []
    for image in images:
      x = resize.short_side(image, SIDE, cubic=clip)
      x = resize.centre_crop(x, SIDE) if clip else _whole(x, patch)
      x = (x.astype(np.float32) / 255 - mean) / std
      own = placed | {'position': positions(tensors, x.shape[:2])}
      rows.append(np.asarray(encode(own, x[None])[0]))
    return np.stack(rows)

  scorer.__name__ = name
  return scorer


def _whole(image: np.ndarray, patch: int) -> np.ndarray:
  """Cut to whole patches, as the model would, and to LONGEST a side.

  So there are few different shapes: every one is compiled anew.
  """
  height, width = (min(n, LONGEST) // patch * patch for n in image.shape[:2])
  top, left = (
    (n - kept) // 2 if n > LONGEST else 0
    for n, kept in zip(image.shape[:2], (height, width), strict=True)
  )
  return image[top : top + height, left : left + width]


def positions(
  tensors: Mapping[str, np.ndarray], size: tuple[int, int]
) -> np.ndarray:
  """Position embeddings for another size of the picture, bicubic as in DINO.

  Args:
    tensors: of the model.
    size: (height, width) of the picture.

  Returns:
    `[1 + n, D]`.
  """
  table, patch = tensors['position'], tensors['patch.weight'].shape[-1]
  rows, columns = size[0] // patch, size[1] // patch
  side = round((len(table) - 1) ** 0.5)
  if (rows, columns) == (side, side):
    return table
  grid = table[1:].reshape(side, side, -1)
  grid = resize.resize(grid, rows, columns, cubic=True)
  return np.concatenate([table[:1], grid.reshape(rows * columns, -1)])


def aesthetic(clip: Scorer, head: Mapping[str, Any]) -> Scorer:
  """LAION's linear head on normalised CLIP embeddings, divided by 10."""
  try:
    weight = np.asarray(head['weight'], np.float32).reshape(-1)
    bias = float(np.asarray(head['bias']).reshape(()))
  except (KeyError, ValueError) as error:
    raise UserError('the aesthetic head is no linear layer') from error

  def scorer(images: Sequence[np.ndarray]) -> np.ndarray:
    x = clip(images)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return (x @ weight + bias) / 10

  scorer.__name__ = 'LAION head on CLIP ViT-L/14'
  return scorer
