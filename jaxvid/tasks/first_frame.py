"""What a video starts from, for models that are shown a frame by channel."""

import dataclasses
import warnings
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import config as config_lib
from jaxvid.data import video
from jaxvid.errors import UserError, UserNotice
from jaxvid.models import conditioning
from jaxvid.models.conditioning import InputConfig
from jaxvid.stream import stream
from jaxvid.tasks import presets
from jaxvid.tasks.bundle import Bundle, open_bundle

if TYPE_CHECKING:
  from jaxvid.tasks.generate import Config

# Further apart, less than half of a picture would be seen.
FARTHEST = 2.0


def model_inputs(config: 'Config', bundle: Bundle) -> InputConfig:
  """What joins a model's noisy latents, as its weights say.

  Raises:
    UserError: channels that nobody fills, or none for the recycled frame
      that was asked for; a memory to be made anew without the frames that
      were recycled then.
  """
  dit = bundle.configure('dit')
  where = f'the transformer of {bundle.where}'
  inputs = config_lib.from_dict(InputConfig, bundle.head().get('inputs') or {})
  if inputs.plain and dit.in_dim != dit.out_dim:
    raise UserError(
      f'{where} takes {dit.in_dim} channels (an image-to-video model?); its '
      'weights do not say what they are'
    )
  inputs.check(dit.in_dim, dit.out_dim, where)
  if config.recycled and inputs.recycled == 'none':
    conditioning.RECYCLED.check(dit.in_dim, dit.out_dim, where)
  change = config.switch
  if inputs.starts and (change.script or change.live):
    if change.cache in ('recache', 'upstream'):
      raise UserError(
        f"switch.cache='{change.cache}' runs the model on clean latents alone; "
        f"{where} is shown more: use 'keep' or 'none'"
      )
  return inputs


def read_picture(path: str, size: tuple[int, int]) -> np.ndarray:
  """A picture as a frame of `size`, uint8 `[H, W, 3]`.

  One of another size is scaled to cover and cropped, and a warning says so.

  Raises:
    UserError: no picture, or one whose shape is too different.
  """
  native = next(video.native_frames(path)).shape[:2]
  if native != size:
    ratio = native[1] * size[0] / (native[0] * size[1])
    seen = f'{native[1]} x {native[0]} pixels, the video {size[1]} x {size[0]}'
    if not 1 / FARTHEST <= ratio <= FARTHEST:
      raise UserError(
        f'first_frame {path} has {seen}: less than half of it would be seen; '
        'crop it, or choose another height and width'
      )
    message = f'first_frame {path} has {seen}: it is resized and cropped'
    warnings.warn(message, UserNotice, stacklevel=2)
  return video.read_image(path, *size)


def made(config: 'Config', size: tuple[int, int], channels: int) -> jax.Array:
  """A first latent frame `[1, 1, h, w, C]`, made from the prompt.

  By the text-to-video model `config.starter`, sampled as `presets.CAUSAL`:
  its first chunk's first latent stands for one frame.

  Args:
    config: of the video.
    size: of its frames.
    channels: of its latents.

  Raises:
    UserError: no such model, or one of other latents.
  """
  from jaxvid.tasks import generate
  from jaxvid.tasks.sampler import Sampler

  if not config.starter:
    raise UserError(
      f'{config.weights} starts from a picture: give first_frame, or starter, '
      'a text-to-video model that makes one'
    )
  how = {**presets.CAUSAL, 'weights': config.starter}
  own = generate.Config(
    prompt=config.prompt,
    negative_prompt=config.negative_prompt,
    height=size[0],
    width=size[1],
    output=config.output,
    dtype=config.dtype,
    **{**how, 'decoder': config.decoder},
  )
  sampler = Sampler.load(own, open_bundle(config.starter))
  if sampler.settings.config.out_dim != channels:
    raise UserError(
      f'starter {config.starter} makes latents of '
      f'{sampler.settings.config.out_dim} channels, {channels} are needed'
    )
  text, negative = sampler.embed([config.prompt])
  # Apart from the noise of the video itself.
  key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
  settings = sampler.settings
  state = stream.init(settings, sampler.params, text, key, negative)
  ticks = stream.chunk_ticks(settings.schedule, 0)
  _, latents = stream.jitted_step(settings)(sampler.params, state, ticks)
  return jnp.array(latents[:, :1])


def counted(config: 'Config') -> 'Config':
  """The config of a video whose first frame is there before it begins."""
  if config.first_frame or config.starter:
    return config
  return dataclasses.replace(config, starter='given')
