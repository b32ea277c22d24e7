"""A loaded teacher that turns prompts into solver trajectories."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion import describe
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models import text as text_lib
from jaxvid.stream import stream, trajectory
from jaxvid.stream.stream import Settings
from jaxvid.tasks import bundle as bundles
from jaxvid.tasks.bundle import Bundle
from jaxvid.tasks.latents import fingerprint

if TYPE_CHECKING:
  from jaxvid.tasks.ode_pairs import Config

PIXELS = 8  # per latent position, along height and width


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Prompts to trajectories.

  Attributes:
    config: of the task.
    settings: of the stream.
    encoder: sizes of the text encoder.
    path: of the solver.
    size: (height, width, channels) of the latents.
    tokens: the tokenizer.
    params: of transformer and text encoder.
    fingerprint: tells these weights from others.
  """

  config: 'Config'
  settings: Settings
  encoder: text_lib.TextConfig
  path: trajectory.Path
  size: tuple[int, int, int]
  tokens: Tokenizer
  params: tuple[Any, Any]
  fingerprint: str

  def __call__(
    self, prompts: Sequence[str], index: Sequence[int]
  ) -> np.ndarray:
    """Trajectories float16 `[B, K + 1, F, H, W, C]`.

    Args:
      prompts: B texts.
      index: numbers of the clips, which decide their noise.

    Raises:
      UserError: they are not finite.
    """
    ids, mask = self.tokens([*prompts, self.config.negative_prompt])
    kept = np.asarray(self._run(self.params, ids, mask, np.array(index)))
    if not np.isfinite(kept).all():
      raise UserError(
        f'{self.config.weights} makes latents that are not finite; is it a '
        f'model for source={self.config.source!r}?'
      )
    return kept

  @functools.cached_property
  def _run(self):
    return jax.jit(self._sample)

  def _sample(self, params, ids, mask, index) -> jax.Array:
    """See `__call__`; the last prompt is the negative one."""
    settings, config = self.settings, self.config
    dit, encoder = params
    dtype = jnp.dtype(settings.dtype)
    text = text_lib.encode(self.encoder, encoder, ids, mask, dtype)
    text, negative = text[:-1], jnp.broadcast_to(text[-1:], text[:-1].shape)
    key = jax.random.key(config.seed)
    shape = (config.frames, *self.size)

    def draw(i):
      return jax.random.normal(jax.random.fold_in(key, i), shape)

    noise = jax.vmap(draw)(index)
    if config.source == 'teacher':
      ready = stream.encode_prompt(settings, dit, text, negative)
      kept = trajectory.clip(settings, dit, ready, noise, self.path)
    else:
      state = stream.init(settings, dit, text, key, negative)
      kept = trajectory.causal(settings, dit, state, noise, self.path)
    return kept.astype(jnp.float16)


def load(config: 'Config', levels: Sequence[float]) -> Sampler:
  """Opens the model that `config` names; its path passes through `levels`."""
  bundle = _open(config)
  dit = bundle.configure(bundle.need('dit'))
  on_gpu = jax.default_backend() == 'gpu'
  dtype = config.dtype or ('bfloat16' if on_gpu else 'float32')
  height, width = _latent_size(config, bundle, dit.patch_size[1])
  settings = Settings(
    dit,
    _memory(config, height // dit.patch_size[1], width // dit.patch_size[2]),
    describe.build(config.schedule),
    config.guidance,
    dtype=dtype,
  )
  path = trajectory.path_through(
    levels, config.steps, config.shift, config.solver
  )
  return Sampler(
    config,
    settings,
    bundle.configure(bundle.need('text')),
    path,
    (height, width, dit.out_dim),
    bundle.tokenizer(),
    (bundle.place('dit', dtype), bundle.place('text', dtype)),
    fingerprint([bundle.read('dit'), bundle.read('text')]),
  )


def _open(config: 'Config') -> Bundle:
  if config.tokenizer:
    size = config.height, config.width
    return bundles.open_weights(config.weights, config.tokenizer, size)
  return bundles.open_bundle(config.weights, config.checkpoint, config.lora)


def _latent_size(
  config: 'Config', bundle: Bundle, patch: int
) -> tuple[int, int]:
  """(height, width) of the latents; UserError if no model can make them."""
  size = (
    config.height or bundle.size[0],
    config.width or bundle.size[1],
  )
  step = PIXELS * patch
  for name, value in zip(('height', 'width'), size, strict=True):
    if value < step or value % step:
      raise UserError(f'{name} must be a multiple of {step}, not {value}')
  return size[0] // PIXELS, size[1] // PIXELS


def _memory(config: 'Config', rows: int, columns: int) -> MemoryConfig:
  """A causal model's memory; a clip made at once needs none."""
  whole = config.source == 'teacher' or not config.window
  return MemoryConfig(
    rows,
    columns,
    0 if whole else config.sink,
    config.frames if whole else config.window,
    config.frames if config.source == 'teacher' else config.chunk,
    config.positions,
  )
