"""What each kind of model needs: its config and every official tensor."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.convert import rules
from jaxvid.errors import UserError
from jaxvid.models import dit, tae, text, vae

Shapes = Mapping[str, tuple[int, ...]]
Config = dit.DiTConfig | vae.VAEConfig | tae.TAEConfig | text.TextConfig

CONFIGS: dict[str, type] = {
  'dit': dit.DiTConfig,
  'vae': vae.VAEConfig,
  'tae': tae.TAEConfig,
  'text': text.TextConfig,
}


def infer(kind: str, shapes: Shapes, settings: Mapping[str, Any]) -> Config:
  """The config of a model, read from the shapes of its official tensors.

  Args:
    kind: 'dit', 'vae', 'tae' or 'text'.
    shapes: official key -> shape.
    settings: the contents of `config.json`, for what shapes do not tell
      (number of heads, text length, latent statistics).

  Raises:
    UserError: tensors that the answer needs are missing or make no sense.
  """
  make = {'dit': _dit, 'vae': _vae, 'tae': _tae, 'text': _text}[kind]
  try:
    return make(shapes, settings)
  except KeyError as error:
    raise UserError(f'{error.args[0]} is missing') from None
  except (ValueError, IndexError, ZeroDivisionError) as error:
    raise UserError(f'the shapes make no sense ({error})') from None


def expected(kind: str, config: Config) -> dict[str, tuple[int, ...]]:
  """Official key -> shape of every tensor of a model."""
  return {
    rules.key_of(path): rules.shape_of(path, leaf.shape)
    for path, leaf in rules.flatten(abstract(kind, config)).items()
  }


@functools.lru_cache(maxsize=16)
def abstract(kind: str, config: Config) -> dict[str, Any]:
  """Our parameter tree (unrolled) as `jax.ShapeDtypeStruct`; costs nothing."""
  init = {
    'dit': _init_dit,
    'vae': lambda c: jax.eval_shape(functools.partial(vae.init, c), _key()),
    'tae': lambda c: jax.eval_shape(functools.partial(tae.init, c), _key()),
    'text': _init_text,
  }[kind]
  return init(config)


def _key() -> jax.Array:
  return jax.random.key(0)


def _init_dit(config: dit.DiTConfig) -> dict[str, Any]:
  latents = jnp.zeros((1, 1, 2, 2, config.in_dim))
  rows = jnp.zeros((1, 1, config.text_dim))
  model = dit.DiT(config, scan=True)
  tree = jax.eval_shape(model.init, _key(), latents, jnp.zeros(1), rows)
  return _unrolled(tree['params'], config.num_layers)


def _init_text(config: text.TextConfig) -> dict[str, Any]:
  model = text.UMT5(config, scan=True)
  tree = jax.eval_shape(model.init, _key(), jnp.zeros((1, 1), jnp.int32))
  return _unrolled(tree['params'], config.num_layers)


def _unrolled(params: Mapping[str, Any], layers: int) -> dict[str, Any]:
  """`unstack_layers` for shapes alone."""
  tree = {name: params[name] for name in params if name != 'blocks'}
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params['blocks']
  )
  return tree | {f'blocks_{i}': one for i in range(layers)}


def _dit(shapes: Shapes, settings: Mapping[str, Any]) -> dit.DiTConfig:
  settings = settings.get('model', settings)
  dim, in_dim, *patch = shapes['patch_embedding.weight']
  heads = settings.get('num_heads', settings.get('num_attention_heads'))
  if settings.get('dim', dim) != dim or not isinstance(heads, int):
    settings, heads = {}, None  # The settings are of another model.
  if heads is None and dim % 128:
    raise UserError(
      f'cannot tell the number of heads at width {dim}: put a config.json '
      'with "num_heads" beside the checkpoint'
    )
  known = {
    name: settings[name] for name in ('text_len', 'eps') if name in settings
  }
  layers = _count(shapes, r'blocks\.(\d+)\.')
  released = {c.dim: c.num_layers for c in (dit.WAN_1_3B, dit.WAN_14B)}
  _check_layers(layers, settings.get('num_layers', released.get(dim)))
  return dit.DiTConfig(
    dim=dim,
    ffn_dim=shapes['blocks.0.ffn.0.weight'][0],
    num_heads=heads or dim // 128,
    num_layers=layers,
    freq_dim=shapes['time_embedding.0.weight'][1],
    text_dim=shapes['text_embedding.0.weight'][1],
    in_dim=in_dim,
    out_dim=shapes['head.head.weight'][0] // int(np.prod(patch)),
    patch_size=tuple(patch),
    # SkyReels-V2; videos of this library have 16 frames per second.
    fps=16 if 'fps_embedding.weight' in shapes else 0,
    **known,
  )


def _text(shapes: Shapes, settings: Mapping[str, Any]) -> text.TextConfig:
  del settings
  vocab_size, dim = shapes['token_embedding.weight']
  table = 'blocks.0.pos_embedding.embedding.weight'
  num_buckets, num_heads = shapes[table]
  layers = _count(shapes, r'blocks\.(\d+)\.')
  released = text.UMT5_XXL
  _check_layers(layers, released.num_layers if dim == released.dim else None)
  return text.TextConfig(
    vocab_size=vocab_size,
    dim=dim,
    dim_attn=shapes['blocks.0.attn.q.weight'][0],
    dim_ffn=shapes['blocks.0.ffn.fc1.weight'][0],
    num_heads=num_heads,
    num_layers=layers,
    num_buckets=num_buckets,
  )


def _vae(shapes: Shapes, settings: Mapping[str, Any]) -> vae.VAEConfig:
  dim, z_dim = shapes['encoder.conv1.weight'][0], shapes['conv2.weight'][0]
  mult, temporal, blocks = [], [], []
  width, count = dim, 0
  for i in range(_count(shapes, r'encoder\.downsamples\.(\d+)\.')):
    name = f'encoder.downsamples.{i}'
    if f'{name}.resample.1.weight' in shapes:
      temporal.append(f'{name}.time_conv.weight' in shapes)
      blocks.append(count)
      mult.append(width // dim)
      count = 0
    else:
      width = shapes[f'{name}.residual.2.weight'][0]
      count += 1
  mult.append(width // dim)
  if {count, *blocks} != {count}:
    raise ValueError('levels of different depth')
  return vae.VAEConfig(
    dim=dim,
    z_dim=z_dim,
    dim_mult=tuple(mult),
    num_res_blocks=count,
    temporal_downsample=tuple(temporal),
    **_statistics(z_dim, settings),
  )


def _tae(shapes: Shapes, settings: Mapping[str, Any]) -> tae.TAEConfig:
  blocks = 0
  while f'decoder.{3 + blocks}.conv.0.weight' in shapes:
    blocks += 1
  # Each level: the blocks, then enlarging, growing and a convolution.
  ends = [3 + level * (blocks + 3) + blocks + 2 for level in range(3)]
  width, z_dim = shapes['decoder.1.weight'][:2]
  pools = [
    shapes[f'encoder.{2 + i * (blocks + 2)}.conv.weight'] for i in range(3)
  ]
  # Old files grow by more frames than they use: only the settings can tell.
  grow = settings.get('decoder_time_strides', tae.TAEW2_1.decoder_time_strides)
  return tae.TAEConfig(
    decoder_widths=(width, *(shapes[f'decoder.{i}.weight'][0] for i in ends)),
    encoder_width=shapes['encoder.0.weight'][0],
    z_dim=z_dim,
    encoder_time_strides=tuple(s[1] // s[0] for s in pools),
    decoder_time_strides=tuple(grow),
    blocks=blocks,
  )


def _statistics(z_dim: int, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Mean and deviation of the latents: as given, else those of Wan2.1."""
  mean, std = settings.get('latents_mean'), settings.get('latents_std')
  if mean is None or std is None:
    if z_dim != vae.WAN_VAE.z_dim:
      raise UserError(
        f'the statistics of {z_dim} latent channels are unknown: put a '
        'config.json with "latents_mean" and "latents_std" beside the file'
      )
    mean, std = vae.WAN_VAE.latent_mean, vae.WAN_VAE.latent_std
  if len(mean) != z_dim or len(std) != z_dim:
    raise UserError(f'latents_mean and latents_std need {z_dim} numbers each')
  return {
    'latent_mean': tuple(map(float, mean)),
    'latent_std': tuple(map(float, std)),
  }


def _check_layers(found: int, wanted: int | None) -> None:
  """A file without its last blocks would look like a smaller model."""
  if wanted is not None and found != wanted:
    raise UserError(f'it has {found} blocks, the model has {wanted}')


def _count(shapes: Shapes, pattern: str) -> int:
  """One more than the highest number that `pattern` finds in the keys."""
  found = [m for m in (re.match(pattern, key) for key in shapes) if m]
  count = 1 + max((int(m[1]) for m in found), default=-1)
  if count > len(found):
    raise ValueError(f'numbering up to {count - 1} in {len(found)} tensors')
  return count


def to_json(kind: str, config: Any) -> dict[str, Any]:
  """`{kind: {...}}`, as checkpoints of ours say what they hold."""
  return {kind: dataclasses.asdict(config)}
