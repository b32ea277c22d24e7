"""What all initialisers of few-step students share.

A student goes on from the weights of a teacher or a causal model. Its
transformer learns; the text encoder is frozen and part of no checkpoint, so
the student is shipped together with the one it started with.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.memory.plan import ParallelPlan
from jaxvid.models import text as text_lib
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.models.layers import unstack_layers
from jaxvid.models.text import TextConfig
from jaxvid.training import checkpoint, diffusion, step
from jaxvid.training.distillation import part
from jaxvid.training.loop import LoopConfig
from jaxvid.training.step import Metrics

# (frozen networks, parameters, batch, key) -> (mean over the batch, scalars).
Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Metrics]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentConfig:
  """A causal model that goes on from other weights.

  Attributes:
    dit: sizes of the transformer.
    text: sizes of the text encoder.
    tokenizer: folder of the tokenizer of the text encoder.
    weights: folder of weights, or a run, to start from.
    encoder: the same, of the text encoder; empty: `weights`.
    chunk: latent frames per chunk.
    scan: scan over layers (quick to compile, little memory) or unroll them
      (faster on CPU).
    remat: see `DiT.remat`.
    backend: of attention, see `ops.attention`.
    dtype: compute type.
  """

  dit: DiTConfig
  text: TextConfig
  tokenizer: str
  weights: str
  encoder: str = ''
  chunk: int = 3
  scan: bool = False
  remat: str | None = None
  backend: str = 'auto'
  dtype: str = 'float32'

  def __post_init__(self):
    if self.dit.text_dim != self.text.dim:
      raise UserError(
        f'dit.text_dim={self.dit.text_dim} must equal text.dim={self.text.dim}'
      )
    if self.chunk < 1:
      raise UserError(f'chunk must be >= 1, not {self.chunk}')

  @property
  def network(self) -> DiT:
    dtype = jnp.dtype(self.dtype)
    return DiT(self.dit, dtype, self.scan, self.remat, backend=self.backend)


def open_tokenizer(config: StudentConfig) -> Tokenizer:
  """The tokenizer; UserError if it has tokens that the encoder has not."""
  tokenizer = Tokenizer.load(config.tokenizer, config.dit.text_len)
  # The table of UMT5 has some rows more than there are tokens.
  if tokenizer.vocab_size > config.text.vocab_size:
    raise UserError(
      f'{config.tokenizer} has {tokenizer.vocab_size} tokens, the text '
      f'encoder {config.text.vocab_size} (text.vocab_size)'
    )
  return tokenizer


def init(config: StudentConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters `{'dit': ...}`; `load` gives the real ones."""
  x = jnp.zeros((1, 1, 2, 2, config.dit.in_dim))
  text = jnp.zeros((1, 1, config.dit.text_dim))
  return {'dit': config.network.init(key, x, jnp.zeros(1), text)['params']}


def load(config: StudentConfig) -> dict[str, Any]:
  """Parameters `{'dit': ...}` to start from; UserError if they do not fit."""
  params = {'dit': part(config.weights, 'dit', config.scan)}
  shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
  checkpoint.check_tree(params, shapes, config.weights)
  return params


def load_encoder(config: StudentConfig) -> Any:
  """Parameters of the text encoder, unrolled."""
  return part(config.encoder or config.weights, 'text', False)


def encode(config: StudentConfig, frozen, ids, mask) -> jax.Array:
  """Prompts `[B, text_len]` through the frozen encoder, without gradient."""
  dtype = jnp.dtype(config.dtype)
  out = text_lib.encode(config.text, frozen['text'], ids, mask, dtype)
  return jax.lax.stop_gradient(out)


def field(config: StudentConfig, params, text: jax.Array, plan: ParallelPlan):
  """The transformer as `(x [B, F, ...], t [B, F]) -> velocity`."""

  def velocity(x, t):
    return config.network.apply({'params': params}, x, t, text, None, plan)[0]

  return velocity


def causal_plan(config: StudentConfig, clip: jax.Array, forcing: str):
  """What attends what in a clip `[..., F, H, W, C]`.

  Args:
    config: sizes.
    clip: for its size.
    forcing: 'diffusion' (each chunk sees itself and those before it) or
      'teacher' (the same of a clean clip that runs beside it).
  """
  frames, height, width, _ = clip.shape[-4:]
  _, rows, columns = config.dit.patch_size
  return diffusion.forcing_plan(
    config.dit,
    forcing,
    config.chunk,
    frames,
    height // rows,
    width // columns,
    config.backend,
  )


def method(loss: Loss, settings: LoopConfig) -> step.Method:
  """Plain descent on a loss that also needs networks that are not trained.

  The loss finds the frozen networks in a dict, with the averages of the
  trained ones as 'average'.
  """

  def bound(frozen: Mapping[str, Any]) -> step.Method:
    return step.single(
      functools.partial(loss, frozen),
      settings.optimizer,
      settings.steps,
      settings.microbatches,
      settings.ema_decay,
    )

  def update(state, frozen, batch, key):
    known = {**frozen, 'average': state.ema}
    return bound(known).update(state, None, batch, key)

  return step.Method(bound({}).create, update)


def model_config(config: StudentConfig) -> dict[str, Any]:
  """What is needed to build the trained transformer again; JSON."""
  return {'dit': dataclasses.asdict(config.dit)}


def exported(
  config: StudentConfig, ema: dict[str, Any], head: Mapping[str, Any]
) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship: the student and its text encoder."""
  head = {**head, 'text': dataclasses.asdict(config.text)}
  params = {'dit': unstack_layers(ema['dit']), 'text': load_encoder(config)}
  return head, params
