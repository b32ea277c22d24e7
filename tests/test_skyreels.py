"""SkyReels-V2 checkpoints: Wan2.1's keys and those of the frame rate."""

import dataclasses
import json

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxvid.convert import checkpoint, names, rules, specs
from jaxvid.models import dit

DIT = golden.path('dit/diffusion_pytorch_model.safetensors')
CONFIG = golden.path('dit/config.json')


def _extra(dim):
  rng = np.random.default_rng(0)
  shapes = {
    'fps_embedding.weight': (2, dim),
    'fps_projection.0.weight': (dim, dim),
    'fps_projection.0.bias': (dim,),
    'fps_projection.2.weight': (6 * dim, dim),
    'fps_projection.2.bias': (6 * dim,),
  }
  return {
    key: 0.1 * rng.standard_normal(shape, np.float32)
    for key, shape in shapes.items()
  }


def _shift(extra, row):
  h = extra['fps_projection.0.weight'] @ extra['fps_embedding.weight'][row]
  h += extra['fps_projection.0.bias']
  h = h / (1 + np.exp(-h))
  return extra['fps_projection.2.weight'] @ h + extra['fps_projection.2.bias']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder as SkyReels-V2 publishes them, of a tiny model."""
  folder = tmp_path_factory.mktemp('skyreels')
  tensors = safetensors.load_file(DIT)
  dim = tensors['patch_embedding.weight'].shape[0]
  safetensors.save_file(tensors | _extra(dim), folder / 'model.safetensors')
  (folder / 'config.json').write_text(CONFIG.read_text())
  return folder


@pytest.mark.parametrize('fps, row', [(16, 0), (24, 1)])
def test_the_frame_rate_shifts_the_modulation_and_nothing_else(
  folder, fps, row
):
  config, params = checkpoint.load_checkpoint(folder, 'dit')
  assert config.fps == 16
  config = dataclasses.replace(config, fps=fps)
  extra = _extra(config.dim)
  plain = {k: v for k, v in params.items() if not k.startswith('fps_')}
  projection = plain['time_projection_1']
  shifted = {**projection, 'bias': projection['bias'] + _shift(extra, row)}
  plain = {**plain, 'time_projection_1': shifted}
  x = jax.random.normal(jax.random.key(0), (1, 2, 4, 4, config.in_dim))
  text = jax.random.normal(jax.random.key(1), (1, 3, config.text_dim))
  t = jnp.asarray([[300.0, 700.0]])
  without = dataclasses.replace(config, fps=0)
  a, b = (
    jax.jit(dit.DiT(c, scan=False).apply)({'params': p}, x, t, text)[0]
    for c, p in ((config, params), (without, plain))
  )
  np.testing.assert_allclose(a, b, atol=2e-5)
  both = (
    dit.modulation(c, p, t) for c, p in ((config, params), (without, plain))
  )
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), *both)


def test_released_model_has_wans_tensors_and_five_more():
  wan = specs.expected('dit', dit.WAN_1_3B)
  sky = specs.expected('dit', dataclasses.replace(dit.WAN_1_3B, fps=16))
  assert len(wan) == 825 and len(sky) == 830
  extra = {k: sky[k] for k in sky if k not in wan}
  assert extra == {k: v.shape for k, v in _extra(1536).items()}


def test_diffusers_names():
  keys = {
    'fps_embedding.weight': 'fps_embedding.weight',
    'fps_projection.net.0.proj.weight': 'fps_projection.0.weight',
    'fps_projection.net.2.bias': 'fps_projection.2.bias',
    'condition_embedder.time_proj.weight': 'time_projection.1.weight',
  }
  tensors = {key: np.zeros(1) for key in keys}
  kind, renamed = names.official(tensors)
  assert kind == 'dit' and set(renamed) == set(keys.values())


def test_it_is_written_back_as_it_was(folder, tmp_path):
  config, params = checkpoint.load_checkpoint(folder, 'dit')
  flat = rules.flatten(params)
  back = dict(rules.to_official(path, x) for path, x in flat.items())
  before = safetensors.load_file(folder / 'model.safetensors')
  assert back.keys() == before.keys()
  for key, value in before.items():
    np.testing.assert_array_equal(back[key], value, err_msg=key)
  assert json.loads(json.dumps(dataclasses.asdict(config)))['fps'] == 16
