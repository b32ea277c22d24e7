"""The input axis: what joins the noisy latent, channel by channel.

Order of the channels: noisy latent, recycled frame, image, control. Which of
them a model takes is part of its config; what a chunk is shown is part of the
stream's state. Source: AAPT (input recycling; supplement D, G and I).
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxvid.errors import UserError
from jaxvid.models.layers import Params


@dataclasses.dataclass(frozen=True)
class InputConfig:
  """Channels besides the noisy latent.

  Attributes:
    recycled: 'last' shows the newest finished latent frame before the chunk;
      'first' keeps these channels for the frame that a video starts from and
      shows zeros afterwards (supplement G, to see what recycling is good
      for); 'none' has no such channels.
    image: show the frame that a video starts from beside every frame.
    control: further channels per latent frame, as the caller gives them
      (camera rays: 4 frames x 6 numbers).
  """

  recycled: Literal['none', 'last', 'first'] = 'none'
  image: bool = False
  control: int = 0

  def __post_init__(self):
    if self.control < 0:
      raise UserError(f'inputs.control must be >= 0, not {self.control}')

  @property
  def plain(self) -> bool:
    """Whether the noisy latent is all there is."""
    return not self.starts and not self.control

  @property
  def starts(self) -> bool:
    """Whether a video has to start from a given frame."""
    return self.recycled != 'none' or self.image

  def channels(self, latent: int) -> int:
    """Input channels of a transformer whose latents have `latent`."""
    count = 1 + (self.recycled != 'none') + self.image
    return count * latent + self.control

  def check(self, in_dim: int, out_dim: int, where: str) -> None:
    """UserError unless a transformer's input has these channels."""
    wanted = self.channels(out_dim)
    if in_dim == wanted:
      return
    if in_dim == out_dim and self.recycled != 'none':
      raise UserError(
        f'{where} has no channels for a recycled frame: its input has '
        f'{in_dim} channels, {wanted} are needed; start from weights of '
        "a diffusion adaptation ('aapt_adapt' recipes)"
      )
    raise UserError(
      f'{where} takes {in_dim} input channels; latents of {out_dim} with '
      f'{self} make {wanted}'
    )


PLAIN = InputConfig()
RECYCLED = InputConfig(recycled='last')


@struct.dataclass
class Inputs:
  """What a chunk is shown, latents or zeros; None where there is no channel.

  Attributes:
    recycled: `[B, 1 or F, H, W, C]`.
    image: `[B, 1, H, W, C]`.
    control: `[B, 1 or F, H, W, K]`.
  """

  recycled: jax.Array | None = None
  image: jax.Array | None = None
  control: jax.Array | None = None


def start(
  config: InputConfig,
  shape: tuple[int, ...],
  frame: jax.Array | None = None,
) -> Inputs | None:
  """What the first chunk of a video is shown.

  Args:
    config: which channels there are.
    shape: of a chunk, `[B, F, H, W, C]`.
    frame: latent frame that the video starts from `[B, 1, H, W, C]`; None =
      zeros.

  Returns:
    None for a plain model.
  """
  if config.plain:
    return None
  batch, _, height, width, latent = shape
  size = (batch, 1, height, width)
  if frame is None:
    frame = jnp.zeros((*size, latent))
  control = jnp.zeros((*size, config.control)) if config.control else None
  return Inputs(
    frame if config.recycled != 'none' else None,
    frame if config.image else None,
    control,
  )


def advance(
  config: InputConfig, inputs: Inputs | None, clean: jax.Array
) -> Inputs | None:
  """What the next chunk is shown after `clean` `[B, F, H, W, C]`."""
  if inputs is None or config.recycled == 'none':
    return inputs
  last = clean[:, -1:].astype(inputs.recycled.dtype)
  if config.recycled == 'first':
    last = jnp.zeros_like(last)
  return inputs.replace(recycled=last)


def shifted(
  config: InputConfig, inputs: Inputs | None, clip: jax.Array, chunk: int
) -> Inputs | None:
  """What every frame of a clip is shown, for one pass over all of it.

  As `advance` chunk after chunk.

  Args:
    config: which channels there are.
    inputs: of the first chunk.
    clip: clean latents `[B, F, H, W, C]`.
    chunk: latent frames per chunk.
  """
  if inputs is None or config.recycled == 'none':
    return inputs
  frames = clip.shape[1]
  ends = clip[:, chunk - 1 : frames - 1 : chunk]
  if config.recycled == 'first':
    ends = jnp.zeros_like(ends)
  shown = jnp.concatenate([inputs.recycled, ends], 1)
  return inputs.replace(recycled=jnp.repeat(shown, chunk, 1)[:, :frames])


def join(config: InputConfig, x: jax.Array, inputs: Inputs | None) -> jax.Array:
  """Noisy latents `[B, F, H, W, C]` and all other channels, `[B, F, H, W, n]`.

  Raises:
    ValueError: a model with further channels and nothing to put there.
  """
  if config.plain:
    return x
  if inputs is None:
    raise ValueError(f'{config} and no inputs')
  parts = [x]
  for more in (inputs.recycled, inputs.image, inputs.control):
    if more is not None:
      size = (*x.shape[:-1], more.shape[-1])
      parts.append(jnp.broadcast_to(more, size).astype(x.dtype))
  return jnp.concatenate(parts, -1)


def widen(
  params: Params, channels: int, key: jax.Array | None = None
) -> dict[str, Any]:
  """A transformer's parameters with further input channels behind its own.

  Args:
    params: of a transformer.
    channels: how many it shall take.
    key: new channels start random, as wide as the old ones: they are learnt
      much sooner than from zero (supplement I); None = zero.

  Raises:
    UserError: it takes more already.
  """
  embedding = params['patch_embedding']
  kernel = embedding['kernel']
  more = channels - kernel.shape[-2]
  if more < 0:
    raise UserError(
      f'the transformer takes {kernel.shape[-2]} channels, more than {channels}'
    )
  shape = (*kernel.shape[:-2], more, kernel.shape[-1])
  new = jnp.zeros(shape, kernel.dtype)
  if key is not None:
    new = jnp.std(kernel) * jax.random.normal(key, shape, kernel.dtype)
  wide = {**embedding, 'kernel': jnp.concatenate([kernel, new], -2)}
  return {**params, 'patch_embedding': wide}
