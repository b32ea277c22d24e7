"""A loaded model that turns captions into videos, many at a time."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxvid.models import text as text_lib
from jaxvid.stream import frames as frames_lib
from jaxvid.stream import stream, teacher
from jaxvid.tasks import first_frame, generate, player, trained
from jaxvid.tasks.bundle import Bundle
from jaxvid.tasks.codecs import CODECS


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A loaded model that turns captions into videos, many at a time.

  Attributes:
    config: how to sample.
    request: its schedule and length.
    settings: of the stream.
    bundle: the model.
    params: the transformer's parameters.
    text_params: the text encoder's parameters.
    decoder: of the latents.
    size: (height, width) of its frames.
  """

  config: generate.Config
  request: generate.Request
  settings: stream.Settings
  bundle: Bundle
  params: Any
  text_params: Any
  decoder: frames_lib.Decoder
  size: tuple[int, int]

  @classmethod
  def load(
    cls, config: generate.Config, bundle: Bundle | None = None
  ) -> 'Sampler':
    """Opens the model that `config` names, unless one is given."""
    output = config.output or 'outputs/evaluation.mp4'
    config = dataclasses.replace(config, prompt='any', output=output)
    request = generate.check(config)
    bundle = bundle or player.open_model(config)
    for kind in ('dit', 'text', config.decoder):
      bundle.need(kind)
    size = player.picture_size(config, bundle)
    settings = player.stream_settings(config, request, bundle, size, None)
    if settings.inputs.starts:
      request = generate.check(first_frame.counted(config))
    trained.warn(bundle, settings, request.num_chunks)
    return cls(
      size=size,
      config=config,
      request=request,
      settings=settings,
      bundle=bundle,
      params=bundle.place('dit', settings.dtype),
      text_params=bundle.place('text', settings.dtype),
      decoder=player.make_decoder(
        config.decoder,
        bundle,
        settings,
        config.chunk,
        config.decoder_device,
      ),
    )

  def calls(self) -> dict[str, int]:
    """Ticks of a clip, and denoiser calls with all other passes counted."""
    schedule, chunks = self.request.schedule, range(self.request.num_chunks)
    passes = 2 if self.settings.guided else 1
    return {
      'ticks_per_clip': sum(len(schedule.row(i)) for i in chunks),
      'calls_per_clip': passes * sum(schedule.calls(i) for i in chunks),
    }

  def embed(self, prompts: Sequence[str]):
    """Encoded prompts `[B, T, D]` and negative prompts (None unguided)."""
    config = self.bundle.configure('text')
    encode = _jitted_encode(config)
    tokens = self.bundle.tokenizer()
    text = encode(self.text_params, *tokens(list(prompts)))
    if not self.settings.guided:
      return text, None
    empty = [self.config.negative_prompt] * len(prompts)
    return text, encode(self.text_params, *tokens(empty))

  def clips(
    self,
    captions: Sequence[str],
    batch: int,
    seed: int,
    pictures: Iterator[np.ndarray] | None = None,
  ) -> Iterator[np.ndarray]:
    """Videos uint8 `[F, H, W, 3]` in the order of the captions.

    Args:
      captions: one per video.
      batch: videos made side by side.
      seed: of the noise.
      pictures: what they start from, for models that need it.
    """
    encode = None if pictures is None else self.encoder()
    for start in range(0, len(captions), batch):
      texts = list(captions[start : start + batch])
      short = batch - len(texts)
      text, negative = self.embed(texts + texts[-1:] * short)
      key = jax.random.fold_in(jax.random.key(seed), start)
      given = None
      if pictures is not None and encode is not None:
        first = list(itertools.islice(pictures, len(texts)))
        given = encode(np.stack(first + first[-1:] * short)[:, None])
      videos = self._batch(text, negative, key, given)
      yield from videos[: len(texts)]

  def encoder(self) -> Callable[[np.ndarray], jax.Array]:
    """Videos uint8 `[B, 4 F - 3, H, W, 3]` -> latents `[B, F, h, w, C]`."""
    kind = 'vae' if 'vae' in self.bundle.kinds else 'tae'
    dtype = self.settings.dtype
    config = player.codec_config(self.bundle, kind, dtype)
    encode = jax.jit(functools.partial(CODECS[kind].encode, config))
    params = self.bundle.place(kind, dtype)

    def run(videos):
      return encode(params, frames_lib.to_float(videos))[0]

    return run

  def _batch(self, text, negative, key, given=None) -> np.ndarray:
    """Videos `[B, F, H, W, 3]` of encoded captions `[B, T, D]`."""
    settings, request = self.settings, self.request
    shown, after = [], None
    if request.schedule.bidirectional:
      ready = stream.encode_prompt(settings, self.params, text, negative)
      memory, dit = settings.memory, settings.config
      size = (2 * memory.height, 2 * memory.width)
      shape = (len(text), memory.chunk, *size, dit.out_dim)
      noise = jax.random.normal(key, shape)
      latents = teacher.jitted_sample(settings)(self.params, ready, noise)
      video, _ = frames_lib.decode(self.decoder, latents, self.config.chunk)
    else:
      state = stream.init(settings, self.params, text, key, negative)
      if given is not None:
        state = stream.start_from(settings, state, given)
        video, after = frames_lib.decode(self.decoder, given)
        shown.append(video)
      pieces = frames_lib.frames(
        settings, self.params, state, self.decoder, request.num_chunks, after
      )
      video = np.concatenate([*shown, *pieces], 1)
    return video[:, : request.num_frames + len(shown)]


@functools.lru_cache(maxsize=4)
def _jitted_encode(config: text_lib.TextConfig):
  return jax.jit(functools.partial(text_lib.encode, config))
