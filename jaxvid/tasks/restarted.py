"""Videos whose every chunk begins with the frame that the last one ended on."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxvid.stream import frames as frames_lib
from jaxvid.stream import restart, stream
from jaxvid.tasks import player
from jaxvid.tasks.bundle import CODECS

if TYPE_CHECKING:
  from jaxvid.tasks.generate import Config, Request


def play(
  config: 'Config',
  request: 'Request',
  model: 'player.Model',
  encode: Callable[[Sequence[str]], jax.Array],
  given: jax.Array | None,
) -> 'player.Playback':
  """Frames of such a stream; arguments as of `live.steered`."""
  settings, params = model.settings, model.params
  state = stream.init(settings, params, model.text, model.key, model.negative)
  texts = {
    chunk: stream.encode_prompt(
      settings, params, encode([prompt]), model.negative
    )
    for chunk, prompt in request.cues.items()
  }
  before = iter(())
  if given is not None:
    before = iter(frames_lib.decode(model.decoder, given, 1)[0])
  frames = restart.frames(
    settings,
    params,
    state,
    model.decoder,
    picture_encoder(config, settings.dtype),
    request.num_chunks,
    given,
    texts,
  )
  return player.Playback(before, frames)


def picture_encoder(config: 'Config', dtype: str) -> restart.Encode:
  """Frames uint8 `[B, H, W, 3]` -> latents `[B, 1, h, w, C]`."""
  bundle = player.open_model(config)
  kind = 'vae' if 'vae' in bundle.kinds else 'tae'
  codec = player.codec_config(bundle, kind, dtype)
  run = jax.jit(functools.partial(CODECS[kind].encode, codec))
  params = bundle.place(kind, dtype)

  def encode(frame: np.ndarray) -> jax.Array:
    return run(params, frames_lib.to_float(frame)[:, None])[0]

  return encode
