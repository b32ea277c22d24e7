"""A stream of random weights in any size, built on the device to be timed.

How fast a network is does not depend on what it has learned; only zeros would
flatter it. Needs no data, video or config package.
"""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.convert import specs
from jaxvid.diffusion import describe
from jaxvid.diffusion.schedule import Schedule
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models import tae, vae
from jaxvid.models.dit import AAPT_8B, WAN_1_3B, WAN_14B, DiTConfig
from jaxvid.models.fused import fuse
from jaxvid.models.text import UMT5_XXL, TextConfig
from jaxvid.quantization import tree
from jaxvid.stream import stream
from jaxvid.stream.frames import Decoder
from jaxvid.stream.stream import Settings
from jaxvid.tasks.speed import Speed

# 8B: blocks and heads of the model of AAPT; channels of a plain stream.
SIZES: dict[str, DiTConfig] = {
  'tiny': DiTConfig(
    dim=48, ffn_dim=64, num_heads=4, num_layers=2, text_dim=32, text_len=8
  ),
  'small': DiTConfig(
    dim=512, ffn_dim=2048, num_heads=8, num_layers=8, text_dim=512, text_len=64
  ),
  '1.3b': WAN_1_3B,
  '8b': dataclasses.replace(AAPT_8B, in_dim=16),
  '14b': WAN_14B,
}
CODECS = {'tae': tae, 'vae': vae}
_FULL = {'tae': tae.TAEW2_1, 'vae': vae.WAN_VAE}
_TINY = {
  'tae': tae.TAEConfig(decoder_widths=(4, 4, 4, 4), encoder_width=4, blocks=1),
  'vae': dataclasses.replace(vae.SHAPES_VAE, z_dim=16),
}


@dataclasses.dataclass(frozen=True)
class System:
  """A published way to stream, as far as its speed goes.

  Attributes:
    schedule: see `describe.Spec`.
    commit: rule of the memory.
    sink: frames always remembered.
    window: of the memory.
    chunk: latent frames denoised together.
    decoder: 'tae' or 'vae'.
    deferred: extra ticks run inside the next chunk's first.
  """

  schedule: str
  commit: str
  sink: int
  window: int
  chunk: int = 3
  decoder: str = 'tae'
  deferred: bool = False

  def ticks(self) -> Schedule:
    return describe.build(describe.Spec(self.schedule, commit=self.commit))


SYSTEMS = {
  'diagdistill': System('4322222', 'last', 3, 9),
  'longlive': System('self_forcing', 'clean', 3, 9),
  'self_forcing': System('self_forcing', 'clean', 0, 21),
  'one_step': System('1', 'last', 1, 30, chunk=1),
}

# From Self-Forcing to DiagDistill (its appendix E.1), one change at a time,
# and then what this library adds to the former.
_SELF = System('self_forcing', 'clean', 0, 18, decoder='vae')
_SHORT = dataclasses.replace(_SELF, window=12)
_NOISY = dataclasses.replace(_SHORT, schedule='4', commit='last')
_FEW = dataclasses.replace(_NOISY, schedule='2')
WATERFALL = {
  'Self-Forcing: 4 + clean, window 18, full VAE': _SELF,
  'window 12': _SHORT,
  'last tick kept, no clean pass': _NOISY,
  '2 ticks': _FEW,
  'tiny VAE: DiagDistill': dataclasses.replace(_FEW, decoder='tae'),
  'Self-Forcing, deferred': dataclasses.replace(_SELF, deferred=True),
}


@dataclasses.dataclass(frozen=True)
class Rig:
  """A stream ready to be timed.

  Attributes:
    settings: of the stream.
    params: the transformer's parameters.
    decoder: of its latents.
    text: encoded prompt `[1, text_len, text_dim]`.
  """

  settings: Settings
  params: Any
  decoder: Decoder
  text: jax.Array

  def start(self, seed: int = 0) -> stream.State:
    """A stream before its first chunk."""
    init = _jitted_init(self.settings)
    return init(self.params, self.text, jax.random.key(seed))


@functools.lru_cache(maxsize=4)
def _jitted_init(settings: Settings):
  return jax.jit(functools.partial(stream.init, settings))


def on_gpu() -> bool:
  return jax.default_backend() == 'gpu'


def compute_dtype(speed: Speed) -> str:
  return speed.dtype or ('bfloat16' if on_gpu() else 'float32')


def settings_of(
  system: System, size: str, pixels: tuple[int, int], speed: Speed
) -> Settings:
  """Settings of a system at a size.

  Args:
    system: how it streams.
    size: one of `SIZES`.
    pixels: (height, width) of the frames.
    speed: how it runs.

  Raises:
    UserError: no such size, or frames that no model can make.
  """
  if size not in SIZES:
    raise UserError(f'size must be one of {", ".join(SIZES)}, not {size!r}')
  if min(pixels) < 16 or any(side % 16 for side in pixels):
    raise UserError(f'height and width must be multiples of 16, not {pixels}')
  deferred = system.deferred if speed.deferred is None else speed.deferred
  schedule = system.ticks()
  return Settings(
    SIZES[size],
    MemoryConfig(
      pixels[0] // 16,
      pixels[1] // 16,
      system.sink,
      system.window,
      system.chunk,
      key_dtype=speed.key_dtype,
    ),
    schedule,
    dtype=compute_dtype(speed),
    fused=speed.fused,
    residual=speed.residual,
    backend=speed.backend or default_backend(),
    deferred=deferred and schedule.extra is not None,
  )


def default_backend() -> str:
  """Attention that suits the device."""
  return 'auto' if on_gpu() else 'xla'


def build(
  system: System, size: str, pixels: tuple[int, int], speed: Speed
) -> Rig:
  """A stream of random weights on the default device; see `settings_of`."""
  settings = settings_of(system, size, pixels, speed)
  config, dtype = settings.config, jnp.dtype(settings.dtype)
  params = random_transformer(settings, speed.quantization)
  text = jax.random.normal(
    jax.random.key(1), (1, config.text_len, config.text_dim), dtype
  )
  decoder = random_decoder(system.decoder, size, settings.dtype)
  return Rig(settings, params, decoder, text)


def random_transformer(settings: Settings, quantization: str = '') -> Any:
  """Random parameters in the layout that the settings name.

  Args:
    settings: of the stream.
    quantization: 'int8', 'w8a8' or 'fp8': all linear layers of the blocks in
      8 bits; '': none.
  """
  config, dtype = settings.config, jnp.dtype(settings.dtype)
  shapes = specs.abstract('dit', config)
  if quantization:
    shapes = tree.abstract(shapes, quantization)
  if settings.fused:
    shapes = jax.eval_shape(lambda p: fuse(config, p, dtype), shapes)
  return random_tree(shapes)


def random_decoder(kind: str, size: str, dtype: str) -> Decoder:
  """A decoder of random weights, arranged for this device."""
  config = (_TINY if size == 'tiny' else _FULL)[kind]
  config = dataclasses.replace(config, dtype=dtype)
  if kind == 'vae' and on_gpu():
    config = dataclasses.replace(config, conv='native')
  params = random_tree(specs.abstract(kind, config))
  params = jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, params)
  config, params = CODECS[kind].fast(config, params, on_gpu())
  return Decoder(CODECS[kind], config, jax.tree.map(jnp.asarray, params))


def random_tree(shapes: Any) -> Any:
  """Random values, never zeros, of the scale of trained ones, on the device.

  Vectors are near 1 where they scale, as norms do, and near 0 elsewhere.
  """

  def leaf(path, shape):
    name = jax.tree_util.keystr(path)
    key = jax.random.key(zlib.crc32(name.encode()))
    if name.endswith('_scale') or name.endswith('.scale'):
      # Of a kernel in 8 bits, or of its input: powers of two.
      power = -5 if name.endswith('_scale') else -8
      return jnp.full(shape.shape, 2.0**power, shape.dtype)
    if jnp.dtype(shape.dtype).itemsize == 1:
      return _random_bytes(key, shape.shape, jnp.dtype(shape.dtype))
    scale = shape.shape[-2] ** -0.5 if len(shape.shape) > 1 else 0.02
    centre = 1.0 if "'scale'" in name or 'gamma' in name else 0.0
    return _random(key, shape.shape, jnp.dtype(shape.dtype), scale, centre)

  return jax.tree.map_with_path(leaf, shapes)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random(key, shape, dtype, scale, centre):
  # Drawn in the type itself: the largest tensors need no second copy.
  draw = jax.random.normal(key, shape, dtype)
  return draw * jnp.asarray(scale, dtype) + jnp.asarray(centre, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_bytes(key, shape, dtype):
  """Small whole numbers: what integers and 8-bit floats both hold."""
  return jax.random.randint(key, shape, -8, 9, jnp.int8).astype(dtype)


def text_encoder(size: str) -> TextConfig:
  """Sizes of the text encoder: UMT5-XXL beside full-size transformers."""
  config = SIZES[size]
  if size in ('tiny', 'small'):
    dim = config.text_dim
    return TextConfig(
      vocab_size=64,
      dim=dim,
      dim_attn=dim,
      dim_ffn=dim,
      num_heads=4,
      num_layers=2,
    )
  return UMT5_XXL
