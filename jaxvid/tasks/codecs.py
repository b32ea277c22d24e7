"""The autoencoders of a model, ready for this device."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.errors import UserError
from jaxvid.stream import frames as frames_lib
from jaxvid.stream.frames import Decoder
from jaxvid.stream.stream import Settings
from jaxvid.tasks.bundle import CODECS, Bundle


def codec_config(bundle: Bundle, kind: str, dtype: str) -> Any:
  """Config of an autoencoder as this device likes it."""
  config = dataclasses.replace(bundle.configure(kind), dtype=dtype)
  if kind == 'vae' and jax.default_backend() != 'cpu':
    config = dataclasses.replace(config, conv='native')
  return config


def make_decoder(
  kind: str,
  bundle: Bundle,
  settings: Settings,
  piece: int,
  device: int | None = None,
) -> Decoder:
  """A streaming decoder, arranged for speed.

  Args:
    kind: of the bundle's autoencoders.
    bundle: the model.
    settings: of the stream.
    piece: latent frames at a time.
    device: index of the device that it runs on; None: where the stream does.
  """
  dtype, config = settings.dtype, codec_config(bundle, kind, settings.dtype)
  out_first = jax.default_backend() != 'cpu'
  arranged = []

  def arrange(tree):
    config_of, tree = CODECS[kind].fast(config, tree, out_first)
    arranged.append(config_of)
    return tree

  params = bundle.place(kind, dtype, arrange)
  where = None if device is None else find_device(device)
  if where is not None:
    params = jax.device_put(params, where)
  parts = (CODECS[kind], arranged[0], params, where)
  if piece >= settings.memory.chunk or settings.schedule.bidirectional:
    return Decoder(*parts)
  return PieceDecoder(*parts, piece)


def find_device(index: int) -> Any:
  """A device by its index; UserError if there is none."""
  devices = jax.devices()
  if not 0 <= index < len(devices):
    raise UserError(
      f'decoder_device {index} does not exist; there are '
      f'{len(devices)} (0 to {len(devices) - 1})'
    )
  return devices[index]


@dataclasses.dataclass(frozen=True)
class PieceDecoder(Decoder):
  """Decodes a chunk in pieces, for less memory.

  Attributes:
    piece: latent frames at a time.
  """

  piece: int = 1

  def __call__(self, latents: jax.Array, state, first: bool):
    """See `Decoder`."""
    videos = []
    for start in range(0, latents.shape[1], self.piece):
      part = latents[:, start : start + self.piece]
      frames, state = super().__call__(part, state, first and start == 0)
      videos.append(frames)
    return jnp.concatenate(videos, 1), state


def encode_frames(
  bundle: Bundle, given: np.ndarray | None, dtype: str
) -> jax.Array | None:
  """Latents `[1, k, h, w, C]` of `4 k - 3` frames."""
  if given is None:
    return None
  kind = 'vae' if 'vae' in bundle.kinds else 'tae'
  module, config = CODECS[kind], codec_config(bundle, kind, dtype)
  params = bundle.place(kind, dtype)
  encode = jax.jit(functools.partial(module.encode, config))
  pixels = frames_lib.to_float(given)[None]
  pieces, state = [], None
  bounds = [0, *range(1, len(given), 16), len(given)]
  for start, stop in itertools.pairwise(bounds):
    latents, state = encode(params, pixels[:, start:stop], state)
    pieces.append(latents)
  return jnp.concatenate(pieces, 1)
