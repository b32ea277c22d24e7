"""Velocity forcing: chunks are also drawn to what was shown for like prompts.

Flow matching on a clip of several chunks, every one with its own prompt,
whose target leans towards a semantic reference: the mean of those past chunks
whose prompts are most like the chunk's own. gamma = 0 is plain flow matching.
Source: BlockVid, section 3.2, equation 3.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.diffusion.chunk_noise import ProgressiveNoise, progressive
from jaxvid.errors import UserError
from jaxvid.memory.bank_rules import DECIMALS, unit
from jaxvid.objectives import flow_matching
from jaxvid.objectives.flow_matching import FlowConfig, Velocity


@dataclasses.dataclass(frozen=True)
class VelocityForcingConfig:
  """What the velocity is drawn to.

  Attributes:
    form: 'anchored' predicts noise - ((1 - gamma) x0 + gamma reference);
      'literal' noise - gamma reference, as equation 3 prints, where the
      chunk's own latents are no part of the target.
    gamma: pull of the reference, 0 to 1; the paper gives no value.
    retrieved: past chunks l in a reference (*paper*: as many as the memory
      retrieves, 2).
  """

  form: Literal['anchored', 'literal'] = 'anchored'
  gamma: float = 0.1
  retrieved: int = 2

  def __post_init__(self):
    if self.form not in ('anchored', 'literal'):
      raise UserError(
        f"form must be 'anchored' or 'literal', not {self.form!r}"
      )
    if not 0 <= self.gamma <= 1:
      raise UserError(f'gamma must be in [0, 1], not {self.gamma:g}')
    if self.retrieved < 1:
      raise UserError(f'retrieved must be >= 1, not {self.retrieved}')


def past_weights(prompts: jax.Array, retrieved: int) -> jax.Array:
  """How much of each chunk is in the reference of each other one.

  Args:
    prompts: mean prompt embeddings of a clip's chunks `[B, n, P]`.
    retrieved: past chunks at most; of two alike the later is taken.

  Returns:
    float32 `[B, n, n]`, rows sum to 1. The first chunk has no past: its
    reference is itself.
  """
  prompts = unit(prompts)
  like = jnp.einsum('bip,bjp->bij', prompts, prompts)
  count = like.shape[-1]
  past = jnp.tril(jnp.ones((count, count), bool), -1)
  like = jnp.where(past, jnp.round(like, DECIMALS), -2.0)
  later = jnp.broadcast_to(jnp.arange(count), like.shape)
  order = jnp.flip(jnp.lexsort((later, like), axis=-1), -1)
  rank = jnp.argsort(order, -1)
  chosen = past & (rank < retrieved)
  chosen = chosen.at[:, 0, 0].set(True)
  return chosen / jnp.sum(chosen, -1, keepdims=True)


def semantic_reference(
  x0: jax.Array, prompts: jax.Array, chunk: int, retrieved: int
) -> jax.Array:
  """Mean of the most alike past chunks, at the length of every chunk.

  Args:
    x0: clean latents `[B, F, H, W, C]`.
    prompts: mean prompt embeddings of the chunks `[B, n, P]`.
    chunk: latent frames per chunk; the last one may be shorter.
    retrieved: see `past_weights`.

  Returns:
    Like `x0`.
  """
  frames = x0.shape[1]
  starts = range(0, frames, chunk)
  parts = [x0[:, start : start + chunk] for start in starts]
  weights = past_weights(prompts, retrieved)
  if len(parts) != weights.shape[-1]:
    raise ValueError(f'{len(parts)} chunks, {weights.shape[-1]} prompts')
  out = []
  for length in sorted({part.shape[1] for part in parts}, reverse=True):
    same = jnp.stack([resample(part, length) for part in parts], 1)
    mine = [i for i, part in enumerate(parts) if part.shape[1] == length]
    out.append(jnp.einsum('bij,bj...->bi...', weights[:, mine], same))
  return jnp.concatenate(
    [x.reshape(x.shape[0], -1, *x.shape[3:]) for x in out], 1
  )


def resample(part: jax.Array, length: int) -> jax.Array:
  """Latents `[B, f, ...]` at another length, linear in time."""
  if part.shape[1] == length:
    return part
  shape = (part.shape[0], length, *part.shape[2:])
  return jax.image.resize(part, shape, 'linear')


def target(
  x0: jax.Array,
  reference: jax.Array,
  noise: jax.Array,
  config: VelocityForcingConfig,
) -> jax.Array:
  """Velocity to predict; all arguments and the result like `x0`."""
  pulled = config.gamma * reference
  if config.form == 'anchored':
    pulled = (1 - config.gamma) * x0 + pulled
  return noise - pulled


def loss(
  velocity: Velocity,
  x0: jax.Array,
  prompts: jax.Array,
  key: jax.Array,
  flow: FlowConfig,
  config: VelocityForcingConfig,
  rising: ProgressiveNoise | None = None,
  weight: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean error of a batch of clips at random noise levels.

  Args:
    velocity: the model, see `flow_matching.clip_errors`.
    x0: clean latents `[B, F, H, W, C]`.
    prompts: mean prompt embeddings of the chunks `[B, n, P]`.
    key: randomness of levels and noise.
    flow: noise levels and forcing.
    config: of the target.
    rising: levels that rise from chunk to chunk; None = each its own.
    weight: of each frame `[B, F]`; None = all the same.

  Returns:
    The scalar loss and metrics; `reference_distance` is the mean square of
    what the references differ by from the chunks.
  """
  t_key, noise_key, context_key, rising_key = jax.random.split(key, 4)
  batch, frames = x0.shape[:2]
  t = flow_matching.sample_times(t_key, flow, batch, frames)
  if rising is not None:
    t = progressive(rising, t, rising_key, flow.chunk)
  noise = jax.random.normal(noise_key, x0.shape)
  context_noise = None
  if flow.context_t:
    context_noise = jax.random.normal(context_key, x0.shape)
  reference = semantic_reference(x0, prompts, flow.chunk, config.retrieved)
  errors = flow_matching.clip_errors(
    velocity,
    x0,
    noise,
    t,
    flow,
    weight,
    context_noise,
    target(x0, reference, noise, config),
  )
  distance = jnp.mean(jnp.square(reference - x0))
  return jnp.mean(errors), {'reference_distance': distance}
