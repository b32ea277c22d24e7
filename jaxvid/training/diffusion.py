"""The training task of text-to-video models: text encoder and DiT together."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data import loaders
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.memory import linear
from jaxvid.memory.plan import ParallelPlan, parallel
from jaxvid.models import text as text_lib
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.models.layers import stack_layers, unstack_layers
from jaxvid.models.text import TextConfig
from jaxvid.objectives import flow_matching
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.ops.attention import block_causal, teacher_forcing
from jaxvid.parallel import rules
from jaxvid.training import samples
from jaxvid.training.loop import TrainTask
from jaxvid.training.samples import SampleConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What the model learns from.

  Attributes:
    latents: folder of cached latents (`configs/shapes/latents.py`), or
      several, joined by commas.
    batch: clips per step.
    frames: latent frames per clip F.
    text_drop: probability that the prompt is left out.
    gap: probability that a clip skips time after its first chunk, see
      `loaders.latent_batches`; for causal models.
    worker_count: processes that prepare batches.
  """

  latents: str
  batch: int = 64
  frames: int = 7
  text_drop: float = 0.1
  gap: float = 0.0
  worker_count: int = 0


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
  """A text-to-video model and how it is trained.

  Attributes:
    dit: sizes of the transformer.
    text: sizes of the text encoder.
    tokenizer: folder of the tokenizer; its vocabulary must be the encoder's.
    flow: noise levels, forcing, weights.
    data: latents and captions.
    sample: videos of the averaged weights, see `loop.sample_every`.
    scan: scan over layers (quick to compile, little memory) or unroll them
      (faster on CPU).
    remat: see `DiT.remat`.
    backend: of attention, see `ops.attention`.
    dtype: compute type.
  """

  dit: DiTConfig
  text: TextConfig
  tokenizer: str
  data: DataConfig
  flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
  sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
  scan: bool = False
  remat: str | None = None
  backend: str = 'auto'
  dtype: str = 'float32'

  def __post_init__(self):
    if self.dit.text_dim != self.text.dim:
      raise UserError(
        f'dit.text_dim={self.dit.text_dim} must equal text.dim={self.text.dim}'
      )


def diffusion_task(config: DiffusionConfig) -> TrainTask:
  """Trains `{'text': ..., 'dit': ...}` by flow matching."""
  tokenizer = Tokenizer.load(config.tokenizer, config.dit.text_len)
  # UMT5's table has more rows than its tokenizer has pieces.
  if tokenizer.vocab_size > config.text.vocab_size:
    raise UserError(
      f'{config.tokenizer} has {tokenizer.vocab_size} tokens, the text '
      f'encoder {config.text.vocab_size} (text.vocab_size)'
    )
  data = config.data
  return TrainTask(
    init=functools.partial(init, config),
    loss=functools.partial(loss, config),
    batches=lambda seed, state: loaders.latent_batches(
      data.latents,
      tokenizer,
      batch=data.batch,
      frames=data.frames,
      text_drop=data.text_drop,
      gap=data.gap,
      chunk=config.flow.chunk,
      seed=seed,
      state=state,
      worker_count=data.worker_count,
    ),
    config=model_config(config),
    sample=sampler(config, tokenizer) if config.sample.vae else None,
    adapt=functools.partial(imported, config),
    rules=rules.TRANSFORMER,
  )


def sampler(config: DiffusionConfig, tokenizer: Tokenizer) -> samples.Sample:
  """Clips as long as those of training: at once, or chunk by chunk."""
  whole = config.flow.forcing == 'none'
  settings = samples.stream_settings(
    config.sample,
    config.dit,
    config.data.frames if whole else config.flow.chunk,
    bidirectional=whole,
    scan=config.scan,
    dtype=config.dtype,
  )
  return samples.make(
    config.sample, settings, config.text, tokenizer, config.data.frames
  )


def model_config(config: DiffusionConfig) -> dict[str, Any]:
  """What is needed to build and sample the model again; JSON."""
  return {
    'dit': dataclasses.asdict(config.dit),
    'text': dataclasses.asdict(config.text),
    'flow': dataclasses.asdict(config.flow),
  }


def init(config: DiffusionConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters, float32, in the layout that `config.scan` names.

  The last projection starts at 0, so that the first prediction is the mean
  of all clips and no layer has to unlearn a random one.
  """
  dit_key, text_key = jax.random.split(key)
  dit, text = _models(config)
  size = config.dit
  x = jnp.zeros((1, 1, 2, 2, size.in_dim))
  ids = jnp.zeros((1, 2), jnp.int32)
  params = {
    'dit': dit.init(dit_key, x, jnp.zeros(1), jnp.zeros((1, 1, size.text_dim)))[
      'params'
    ],
    'text': text.init(text_key, ids)['params'],
  }
  head = params['dit']['head']['head']
  head['kernel'] = jnp.zeros_like(head['kernel'])
  return params


def loss(config: DiffusionConfig, params, batch, key):
  """Flow-matching loss of one batch of cached latents."""
  dit, _ = _models(config)
  text = text_lib.encode(
    config.text,
    params['text'],
    batch['ids'],
    batch['mask'],
    jnp.dtype(config.dtype),
  )
  x0 = batch['latents'].astype(jnp.float32)
  _, frames, height, width, _ = x0.shape
  plan = training_plan(config, frames, height // 2, width // 2)

  def velocity(x, t):
    if config.flow.forcing == 'none' and not config.flow.staggered:
      t = t[:, 0]
    return dit.apply({'params': params['dit']}, x, t, text, None, plan)[0]

  return flow_matching.loss(velocity, x0, key, config.flow, batch['weight'])


def training_plan(
  config: DiffusionConfig, frames: int, height: int, width: int
):
  """The plan that `flow.forcing` asks for; see `forcing_plan`."""
  forcing, chunk = config.flow.forcing, config.flow.chunk
  return forcing_plan(
    config.dit, forcing, chunk, frames, height, width, config.backend
  )


def forcing_plan(
  dit: DiTConfig,
  forcing: str,
  chunk: int,
  frames: int,
  height: int,
  width: int,
  backend: str = 'auto',
) -> ParallelPlan | linear.LinearParallelPlan:
  """What attends what: everything, the past, or the clean past.

  Args:
    dit: sizes.
    forcing: 'none', 'diffusion' or 'teacher', see `FlowConfig`.
    chunk: latent frames per chunk.
    frames: latent frames F of a clip.
    height: rows of tokens.
    width: columns of tokens.
    backend: of attention.
  """
  index = np.arange(frames)
  if dit.linear:
    if forcing == 'teacher':
      index = np.concatenate([index, index])
    return linear.parallel(
      index,
      height,
      width,
      dit.head_dim,
      forcing,
      chunk,
      theta=dit.rope_theta,
    )
  tokens, ranges = height * width, None
  if forcing == 'diffusion':
    ranges = jnp.asarray(block_causal(frames, chunk, tokens))
  elif forcing == 'teacher':
    ranges = jnp.asarray(teacher_forcing(frames, chunk, tokens))
    index = np.concatenate([index, index])
  return parallel(
    index, height, width, dit.head_dim, ranges, backend, dit.rope_theta
  )


def exported(params: dict[str, Any]) -> dict[str, Any]:
  """Parameters in the unrolled layout, as they are shipped."""
  return {name: unstack_layers(tree) for name, tree in params.items()}


def imported(config: DiffusionConfig, params: dict[str, Any]) -> dict[str, Any]:
  """Parameters of either layout in the one that `config.scan` names."""
  params = exported(params)
  if not config.scan:
    return params
  return {name: stack_layers(tree) for name, tree in params.items()}


def _models(config: DiffusionConfig):
  dtype = jnp.dtype(config.dtype)
  return (
    DiT(config.dit, dtype, config.scan, config.remat, backend=config.backend),
    text_lib.UMT5(config.text, dtype, config.scan),
  )
