"""Sample videos of a text-to-video model while it learns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion import describe
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models import text as text_lib
from jaxvid.models import vae
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, teacher
from jaxvid.stream.stream import Settings
from jaxvid.training import autoencoder

Sample = Callable[[Any, jax.Array], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """Videos that show how far a training is (`loop.sample_every`).

  Attributes:
    vae: weights of the VAE that decodes them; empty: no videos.
    captions: one video each.
    size: (height, width) of the latents.
    steps: solver steps; 0: 50 for a whole clip, 16 for every chunk of a
      causal model.
    shift: of the time steps.
    guidance: weight w in u + w (c - u); 1 is off.
    sink: first latent frames that a causal model always sees.
    window: latent frames that it sees, the current chunk included.
  """

  vae: str = ''
  captions: tuple[str, ...] = ('a big red circle moves right slowly',)
  size: tuple[int, int] = (8, 8)
  steps: int = 0
  shift: float = 5.0
  guidance: float = 3.0
  sink: int = 3
  window: int = 9

  def __post_init__(self):
    if self.vae and not self.captions:
      raise UserError('sample.captions is empty; sample.vae is of no use')


def stream_settings(
  config: SampleConfig,
  dit: DiTConfig,
  chunk: int,
  *,
  bidirectional: bool,
  scan: bool,
  dtype: str,
) -> Settings:
  """How a model before distillation is sampled.

  Args:
    config: settings of the videos.
    dit: sizes of the transformer.
    chunk: latent frames per chunk; of the whole clip, if bidirectional.
    bidirectional: a whole clip by UniPC, or a stream by Euler ticks and a
      clean commit.
    scan: the layout of the parameters.
    dtype: compute type.

  Raises:
    UserError: impossible steps, window or size.
  """
  _, rows, columns = dit.patch_size
  height, width = config.size
  if height % rows or width % columns:
    raise UserError(
      f'sample.size={config.size} is no multiple of the patch '
      f'({rows}, {columns})'
    )
  memory = MemoryConfig(
    height=height // rows,
    width=width // columns,
    sink=0 if bidirectional else config.sink,
    window=chunk if bidirectional else config.window,
    chunk=chunk,
    positions='relative',
  )
  spec = describe.Spec(
    'teacher' if bidirectional else 'euler', config.shift, steps=config.steps
  )
  schedule = describe.build(spec)
  return Settings(dit, memory, schedule, config.guidance, scan, dtype)


def make(
  config: SampleConfig,
  settings: Settings,
  text: TextConfig,
  tokenizer: Tokenizer,
  frames: int,
) -> Sample:
  """A training task's `sample`; loads the VAE now.

  Args:
    config: settings of the videos; names a VAE.
    settings: of the stream.
    text: sizes of the text encoder.
    tokenizer: of the text encoder.
    frames: latent frames of a video, rounded up to whole chunks.

  Returns:
    Parameters `{'text', 'dit'}` and a key -> one video `[1, F, H, W, 3]` per
    caption, uint8.

  Raises:
    UserError: no such VAE, or one of other latents.
  """
  codec, weights = autoencoder.load_vae(config.vae)
  if codec.z_dim != settings.config.out_dim:
    raise UserError(
      f'{config.vae} has latents of {codec.z_dim} channels, the transformer '
      f'makes {settings.config.out_dim}'
    )
  decoder = frames_lib.Decoder(vae, codec, weights)
  count = len(config.captions)
  tokens = tokenizer([*config.captions, *[''] * count])
  chunks = -(-frames // settings.memory.chunk)
  run = jax.jit(functools.partial(latents, settings, text, chunks, *tokens))

  def sample(params, key: jax.Array) -> dict[str, np.ndarray]:
    # Through the host: every process of a job decodes what it has whole.
    finished = jnp.asarray(np.asarray(run(params, key)))
    videos, _ = frames_lib.decode(decoder, finished)
    return dict(zip(config.captions, videos[:, None], strict=True))

  return sample


def latents(
  settings: Settings,
  text: TextConfig,
  chunks: int,
  ids: jax.Array,
  mask: jax.Array,
  params,
  key: jax.Array,
) -> jax.Array:
  """Clean latents `[B, F, H, W, C]` of B prompts.

  Args:
    settings: of the stream.
    text: sizes of the text encoder.
    chunks: how many.
    ids: tokens `[2 B, T]` of prompts and negative prompts.
    mask: `[2 B, T]`, which of them count.
    params: `{'text', 'dit'}`.
    key: of all noise.
  """
  dtype = jnp.dtype(settings.dtype)
  encoded = text_lib.encode(text, params['text'], ids, mask, dtype)
  prompt, negative = jnp.split(encoded, 2)
  if not settings.schedule.bidirectional:
    state = stream.init(settings, params['dit'], prompt, key, negative)
    return stream.rollout(settings, params['dit'], state, chunks)[1]
  ready = stream.encode_prompt(settings, params['dit'], prompt, negative)
  memory, (_, rows, columns) = settings.memory, settings.config.patch_size
  size = (memory.height * rows, memory.width * columns)
  shape = (len(prompt), memory.chunk, *size, settings.config.out_dim)
  noise = jax.random.normal(key, shape)
  return teacher.sample(settings, params['dit'], ready, noise)
