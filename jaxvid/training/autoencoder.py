"""Training tasks of the autoencoders of the shapes world.

Clips are rendered on the fly, so no picture is ever seen twice.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import config as config_lib
from jaxvid.data.shapes import render
from jaxvid.data.shapes import scene as scenes
from jaxvid.errors import UserError
from jaxvid.models import tae, vae
from jaxvid.objectives import reconstruction
from jaxvid.training import checkpoint
from jaxvid.training.loop import TrainTask


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Which clips an autoencoder learns from.

  Attributes:
    height: of the picture in pixels.
    width: of the picture in pixels.
    lengths: frames per clip, 1 + 4k each; batches take turns. Long clips
      show the decoder its steady state, short ones the start of a video.
    batch_frames: frames in a batch, about.
    counts: weights of scenes with 1, 2, 3 objects.
    pan_probability: how often the camera pans.
  """

  height: int = 64
  width: int = 64
  lengths: tuple[int, ...] = (13, 5, 13, 25)
  batch_frames: int = 50
  counts: tuple[float, ...] = (0.4, 0.3, 0.3)
  pan_probability: float = 0.2


class Clips:
  """Endless batches of fresh clips; batch n depends on the seed and n only."""

  def __init__(self, config: ClipConfig, seed: int, state=None):
    self._config = config
    self._seed = seed
    self._index = 0 if state is None else int(state['index'])
    # Objects may hide each other for a while: only frame 0 is checked, which
    # is quick.
    self._settings = scenes.SceneSettings(
      counts=config.counts,
      pan_probability=config.pan_probability,
      height=config.height,
      width=config.width,
      horizon=1,
    )

  def get_state(self) -> dict[str, Any]:
    return {'index': self._index}

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    """`{'video': uint8 [B, T, H, W, 3]}`."""
    config = self._config
    rng = np.random.default_rng((self._seed, self._index))
    frames = config.lengths[self._index % len(config.lengths)]
    self._index += 1
    count = max(1, round(config.batch_frames / frames))
    clips = [self._clip(rng, frames) for _ in range(count)]
    return {'video': np.stack(clips)}

  def _clip(self, rng: np.random.Generator, frames: int) -> np.ndarray:
    scene = scenes.sample_scene(rng, self._settings)
    times = rng.integers(160) + np.arange(frames)
    return render.render(scene, times, self._config.height, self._config.width)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the parts of the loss.

  Attributes:
    absolute: mean absolute error.
    squared: mean squared error.
    edges: error of neighbour differences.
    kl: distance of the posterior from a normal distribution, per element.
  """

  absolute: float = 1.0
  squared: float = 1.0
  edges: float = 0.5
  kl: float = 1e-3


@dataclasses.dataclass(frozen=True)
class VAETraining:
  """A Wan VAE and how it is trained.

  Attributes:
    model: sizes.
    clips: what it learns from.
    weights: of the parts of its loss.
    frozen: a finished VAE whose encoder and latents stay as they are while
      its decoder goes on learning; '' trains both. `model` is then that
      VAE's own.
    latent_noise: with `frozen`, largest deviation of noise on normalised
      latents: a generator's latents are never perfect.
  """

  model: vae.VAEConfig
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  weights: LossConfig = dataclasses.field(default_factory=LossConfig)
  frozen: str = ''
  latent_noise: float = 0.03


@dataclasses.dataclass(frozen=True)
class TAETraining:
  """A TAEHV-style decoder and how it learns another VAE's latents.

  Attributes:
    model: sizes; the decoder alone is trained.
    vae: weights of the VAE, a shipped folder or a training run.
    clips: what it learns from.
    weights: of the parts of its loss.
    latent_noise: largest deviation of noise on normalised latents.
  """

  model: tae.TAEConfig
  vae: str
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  weights: LossConfig = dataclasses.field(default_factory=LossConfig)
  latent_noise: float = 0.05


def vae_task(training: VAETraining) -> TrainTask:
  """Encoder and decoder of a Wan VAE, or the decoder of a frozen one."""
  if training.frozen:
    return _vae_decoder_task(training)
  model, weights = training.model, training.weights

  def loss(params, batch, key):
    video = to_float(batch['video'])
    mean, log_variance, _ = vae.moments(model, params, video)
    log_variance = jnp.clip(log_variance, -20.0, 4.0)
    noise = jax.random.normal(key, mean.shape)
    z = mean + jnp.exp(0.5 * log_variance) * noise
    output, _ = vae.decode(model, params, vae.normalize(model, z))
    total, metrics = _compare(weights, output, video)
    kl = reconstruction.kl_to_normal(mean, log_variance)
    metrics['kl'] = kl
    metrics['posterior_std'] = jnp.mean(jnp.exp(0.5 * log_variance))
    return total + weights.kl * kl, metrics

  return TrainTask(
    init=lambda key: vae.init(model, key),
    loss=loss,
    batches=lambda seed, state: Clips(training.clips, seed, state),
    config={'vae': dataclasses.asdict(model)},
  )


def exported_vae(training: VAETraining, params) -> tuple[dict, Any]:
  """Config with measured latent statistics, and all parameters."""
  if training.frozen:
    model, whole = load_vae(training.frozen)
    return {'vae': dataclasses.asdict(model)}, {**whole, **params}
  mean, std = latent_statistics(training.model, params, training.clips)
  model = dataclasses.replace(training.model, latent_mean=mean, latent_std=std)
  return {'vae': dataclasses.asdict(model)}, params


def _vae_decoder_task(training: VAETraining) -> TrainTask:
  model, whole = load_vae(training.frozen)
  start = {name: whole[name] for name in ('conv2', 'decoder')}

  def decode(params, z):
    return vae.decode(model, params, z)[0]

  return TrainTask(
    init=lambda key: jax.tree.map(jnp.copy, start),
    loss=_distil(training.weights, training.latent_noise, model, whole, decode),
    batches=lambda seed, state: Clips(training.clips, seed, state),
    config={'vae': dataclasses.asdict(model)},
  )


def tae_task(training: TAETraining) -> TrainTask:
  """A fast decoder for the latents of a finished VAE."""
  teacher, teacher_params = load_vae(training.vae)
  model = training.model

  def decode(params, z):
    return tae.decode_raw(model, params, z)

  return TrainTask(
    init=lambda key: tae.init(model, key),
    loss=_distil(
      training.weights, training.latent_noise, teacher, teacher_params, decode
    ),
    batches=lambda seed, state: Clips(training.clips, seed, state),
    config={'tae': dataclasses.asdict(model)},
  )


def _distil(weights: LossConfig, latent_noise: float, teacher, frozen, decode):
  """Loss of a decoder on the latents of a frozen encoder."""

  def loss(params, batch, key):
    video = to_float(batch['video'])
    z, _ = vae.encode(teacher, frozen, video)
    # A different amount for every clip, none included.
    level_key, noise_key = jax.random.split(key)
    levels = jax.random.uniform(level_key, (z.shape[0], 1, 1, 1, 1))
    noise = jax.random.normal(noise_key, z.shape)
    output = decode(params, z + latent_noise * levels * noise)
    return _compare(weights, output, video)

  return loss


def _compare(weights: LossConfig, output, video):
  """The part of the loss that all autoencoders share, and its metrics."""
  absolute = reconstruction.absolute(output, video)
  squared = reconstruction.squared(output, video)
  edges = reconstruction.edges(output, video)
  total = (
    weights.absolute * absolute
    + weights.squared * squared
    + weights.edges * edges
  )
  psnr = jnp.mean(reconstruction.psnr(output, video))
  return total, {'absolute': absolute, 'edges': edges, 'psnr': psnr}


def load_vae(path: str) -> tuple[vae.VAEConfig, Any]:
  """Config and float32 parameters of a finished VAE.

  Raises:
    UserError: nothing there, or not a VAE.
  """
  head, params = checkpoint.load_params(path, dtype='float32')
  if not isinstance(head.get('vae'), dict):
    raise UserError(f'{path} does not describe a vae')
  model = config_lib.from_dict(vae.VAEConfig, head['vae'])
  shapes = jax.eval_shape(lambda key: vae.init(model, key), jax.random.key(0))
  checkpoint.check_tree(params, shapes, path)
  return model, params


def latent_statistics(
  model: vae.VAEConfig, params, clips: ClipConfig, count: int = 128
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Per-channel mean and deviation of raw latents over `count` clips."""
  clips = dataclasses.replace(clips, lengths=(13,), batch_frames=4 * 13)
  batches = Clips(clips, seed=1)
  encode = jax.jit(lambda video: vae.moments(model, params, video)[0])
  latents = np.concatenate(
    [
      np.asarray(encode(to_float(next(batches)['video'])))
      for _ in range(count // 4)
    ]
  )
  axes = tuple(range(latents.ndim - 1))
  mean, std = latents.mean(axes), latents.std(axes)
  return tuple(map(float, mean)), tuple(map(float, std))


def to_float(video: jax.Array | np.ndarray) -> jax.Array:
  """uint8 0..255 to float32 in [-1, 1]."""
  return jnp.asarray(video).astype(jnp.float32) / 127.5 - 1.0
