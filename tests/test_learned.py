"""Learned scorers: every layout gives the same numbers as plain formulas."""

import math

import numpy as np
import pytest
from PIL import Image

from jaxvid.convert import safetensors_file
from jaxvid.errors import UserError
from jaxvid.evaluation import curves, learned, resize, scorers
from jaxvid.models import vision
from jaxvid.tasks import tensors

DIM, LAYERS, PATCH, OUT = 128, 2, 16, 24
OPENAI = 'visual.transformer.resblocks.{}.'
HUGGING = 'vision_model.encoder.layers.{}.'


def draw(seed=0, side=14, dim=DIM):
  """A tiny model by our names; heads of 64."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.normal(0, 0.1, shape).astype(np.float32)

  tensors = {
    'class': normal(dim),
    'position': normal(1 + side * side, dim),
    'patch.weight': normal(dim, 3, PATCH, PATCH),
    'norm.weight': 1 + normal(dim),
    'norm.bias': normal(dim),
  }
  for i in range(LAYERS):
    sizes = {
      'norm1': (dim,),
      'norm2': (dim,),
      'qkv': (3 * dim, dim),
      'out': (dim, dim),
      'fc1': (4 * dim, dim),
      'fc2': (dim, 4 * dim),
    }
    for name, size in sizes.items():
      tensors[f'blocks.{i}.{name}.weight'] = normal(*size)
      tensors[f'blocks.{i}.{name}.bias'] = normal(size[0])
  return tensors


def clip_model(seed=0):
  rng = np.random.default_rng(seed + 1)
  extra = {
    'pre.weight': rng.normal(1, 0.1, DIM).astype(np.float32),
    'pre.bias': rng.normal(0, 0.1, DIM).astype(np.float32),
    'project': rng.normal(0, 0.1, (DIM, OUT)).astype(np.float32),
  }
  return draw(seed) | extra


def plain(config, model, image):
  """The same with loops over patches and heads, in float64."""
  t = {name: value.astype(np.float64) for name, value in model.items()}

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
      x.var(-1, keepdims=True) + config.eps
    )
    return x * t[f'{name}.weight'] + t[f'{name}.bias']

  rows = [t['class']]
  for top in range(0, image.shape[0] - PATCH + 1, PATCH):
    for left in range(0, image.shape[1] - PATCH + 1, PATCH):
      part = image[top : top + PATCH, left : left + PATCH].transpose(2, 0, 1)
      rows.append((t['patch.weight'] * part).sum((1, 2, 3)))
  x = np.stack(rows) + t['position']
  x = norm('pre', x) if 'pre.weight' in t else x
  for i in range(LAYERS):
    block = f'blocks.{i}.'
    y = norm(block + 'norm1', x)
    y = y @ t[block + 'qkv.weight'].T + t[block + 'qkv.bias']
    q, k, v = np.split(y, 3, -1)
    heads = []
    for start in range(0, DIM, 64):
      part = slice(start, start + 64)
      scores = np.exp(q[:, part] @ k[:, part].T / 8)
      heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
    y = np.concatenate(heads, -1)
    x = x + y @ t[block + 'out.weight'].T + t[block + 'out.bias']
    y = norm(block + 'norm2', x)
    y = y @ t[block + 'fc1.weight'].T + t[block + 'fc1.bias']
    if config.quick_gelu:
      y = y / (1 + np.exp(-1.702 * y))
    else:
      y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    x = x + y @ t[block + 'fc2.weight'].T + t[block + 'fc2.bias']
  x = norm('norm', x)[0]
  return x @ t['project'] if 'project' in t else x


@pytest.mark.parametrize(
  ('config', 'model'),
  [(vision.CLIP, clip_model()), (vision.DINO, draw())],
  ids=['clip', 'dino'],
)
def test_the_encoder_equals_plain_formulas(config, model):
  images = np.random.default_rng(5).normal(size=(2, 224, 224, 3))
  found = vision.encode(config, model, images.astype(np.float32))
  for image, row in zip(images, found, strict=True):
    expected = plain(config, model, image)
    gate = 1e-4 * max(1, np.abs(expected).max())
    assert np.abs(row - expected).max() < gate


def openai(t):
  names = {
    'visual.class_embedding': t['class'],
    'visual.positional_embedding': t['position'],
    'visual.conv1.weight': t['patch.weight'],
    'visual.proj': t['project'],
    'visual.ln_pre.weight': t['pre.weight'],
    'visual.ln_pre.bias': t['pre.bias'],
    'visual.ln_post.weight': t['norm.weight'],
    'visual.ln_post.bias': t['norm.bias'],
    'transformer.resblocks.0.ln_1.weight': t['pre.bias'],  # of the text
  }
  parts = {'norm1': 'ln_1', 'norm2': 'ln_2', 'out': 'attn.out_proj'}
  parts |= {'fc1': 'mlp.c_fc', 'fc2': 'mlp.c_proj'}
  for i in range(LAYERS):
    for kind in ('weight', 'bias'):
      for ours, theirs in parts.items():
        name = OPENAI.format(i) + f'{theirs}.{kind}'
        names[name] = t[f'blocks.{i}.{ours}.{kind}']
      name = OPENAI.format(i) + f'attn.in_proj_{kind}'
      names[name] = t[f'blocks.{i}.qkv.{kind}']
  return names


def hugging(t):
  head = 'vision_model.embeddings.'
  names = {
    head + 'class_embedding': t['class'],
    head + 'position_embedding.weight': t['position'],
    head + 'patch_embedding.weight': t['patch.weight'],
    'visual_projection.weight': np.ascontiguousarray(t['project'].T),
    'vision_model.pre_layrnorm.weight': t['pre.weight'],
    'vision_model.pre_layrnorm.bias': t['pre.bias'],
    'vision_model.post_layernorm.weight': t['norm.weight'],
    'vision_model.post_layernorm.bias': t['norm.bias'],
  }
  parts = {'norm1': 'layer_norm1', 'norm2': 'layer_norm2'}
  parts |= {'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2', 'out': 'self_attn.out_proj'}
  for i in range(LAYERS):
    for kind in ('weight', 'bias'):
      for ours, theirs in parts.items():
        name = HUGGING.format(i) + f'{theirs}.{kind}'
        names[name] = t[f'blocks.{i}.{ours}.{kind}']
      for part, value in zip(
        'qkv', np.split(t[f'blocks.{i}.qkv.{kind}'], 3), strict=True
      ):
        name = HUGGING.format(i) + f'self_attn.{part}_proj.{kind}'
        names[name] = np.ascontiguousarray(value)
  return names


def dino(t):
  names = {
    'cls_token': t['class'][None, None],
    'pos_embed': t['position'][None],
    'patch_embed.proj.weight': t['patch.weight'],
    'patch_embed.proj.bias': np.zeros(DIM, np.float32),
    'norm.weight': t['norm.weight'],
    'norm.bias': t['norm.bias'],
  }
  parts = {'norm1': 'norm1', 'norm2': 'norm2', 'qkv': 'attn.qkv'}
  parts |= {'fc1': 'mlp.fc1', 'fc2': 'mlp.fc2', 'out': 'attn.proj'}
  for name, value in t.items():
    if name.startswith('blocks.'):
      _, i, part, kind = name.split('.')
      names[f'blocks.{i}.{parts[part]}.{kind}'] = value
  return names


@pytest.mark.parametrize('layout', [openai, hugging])
def test_layouts_of_clip(layout, tmp_path):
  model = clip_model()
  path = tmp_path / 'vit_b_32.safetensors'
  safetensors_file.save(path, layout(model))
  found = learned.read(path, tensors.read)
  assert found.keys() == model.keys()
  for name, value in model.items():
    np.testing.assert_array_equal(found[name], value, name)


def test_bad_weights_are_one_line(tmp_path):
  path = tmp_path / 'vit_b_32.safetensors'
  model = openai(clip_model())
  del model['visual.ln_post.bias']
  safetensors_file.save(path, model)
  with pytest.raises(UserError, match=r'lacks norm\.bias'):
    learned.find(tmp_path, tensors.read)
  safetensors_file.save(path, {'x': np.zeros(3, np.float32)})
  with pytest.raises(UserError, match='no vision transformer'):
    learned.find(tmp_path, tensors.read)
  path.unlink()
  with pytest.raises(UserError, match='holds none that is known'):
    learned.find(tmp_path, tensors.read)
  with pytest.raises(UserError, match='not a folder'):
    learned.find(tmp_path / 'nowhere', tensors.read)


def test_a_folder_of_weights_changes_the_scorers(tmp_path):
  save = safetensors_file.save
  save(tmp_path / 'dino_vitb16.safetensors', dino(draw()))
  save(tmp_path / 'ViT-B-32.safetensors', openai(clip_model(1)))
  save(tmp_path / 'ViT-L-14.safetensors', openai(clip_model(2)))
  head = {'weight': np.ones((1, OUT), np.float32), 'bias': np.full(1, 5.0)}
  head = {name: value.astype(np.float32) for name, value in head.items()}
  save(tmp_path / 'sa_0_4_vit_l_14_linear.safetensors', head)
  reader = scorers.make(
    scorers.ScorerConfig(weights=str(tmp_path), segmenter='none'),
    tensors.read,
  )
  assert reader.names['subject'] == 'DINO ViT-B/16'
  assert reader.names['aesthetic'] == 'LAION head on CLIP ViT-L/14'
  assert reader.names['clarity'] == 'light'
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (3, 40, 60, 3), np.uint8)
  found = curves.read(iter(frames), reader)
  assert found.subject.shape == (3, DIM) and found.background.shape == (3, OUT)
  x = found.aesthetic * 10 - 5
  assert np.isfinite(x).all() and (np.abs(x) <= math.sqrt(OUT)).all()
  one = scorers.ScorerConfig(weights=str(tmp_path), subject='light')
  assert scorers.make(one, tensors.read).names['subject'] == 'light'


def test_bilinear_is_that_of_pillow_when_enlarging():
  image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
  found = resize.resize(image, 20, 31, cubic=False)
  expected = Image.fromarray(image).resize((31, 20), Image.Resampling.BILINEAR)
  assert np.abs(found - np.asarray(expected, np.float32)).max() <= 1


def test_bicubic_keeps_ramps_and_sums():
  for source, target in ((14, 24), (30, 11)):
    rows = resize.matrix(source, target, cubic=True)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
  ramp = np.arange(30.0)
  place = (np.arange(60) + 0.5) / 2 - 0.5
  # a = -0.75 reproduces lines at the samples' middle only; near elsewhere.
  wide = resize.matrix(30, 60, cubic=True) @ ramp
  assert np.abs(wide - place)[6:-6].max() < 0.05
  tall = np.zeros((50, 100, 3), np.uint8)
  assert resize.short_side(tall, 25, True).shape == (25, 50, 3)
  assert resize.short_side(tall.swapaxes(0, 1), 25, True).shape == (50, 25, 3)
  assert resize.centre_crop(tall, 20).shape == (20, 20, 3)
