"""AAPT's discriminator: the generator's backbone and a logit per frame.

It sees clean frames (the time step is an input alone), each beside the frame
before it, as the generator did. Causal, it judges all durations of a clip in
one pass: the logit after a frame knows nothing of later ones. Under teacher
forcing a generated frame has a real past: real and judged clips run side by
side. As a remedy against videos that stand still the whole clip can be judged
in both directions, by one score (AAD-1).
Source: AAPT supplement C, D and F; APT; AAD-1 (arXiv 2606.03972).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxvid.models import conditioning
from jaxvid.models.discriminator import Discriminator, DiscriminatorConfig
from jaxvid.ops.attention.sliding import sliding_teacher
from jaxvid.training import aapt_config
from jaxvid.training.aapt_config import AAPTConfig


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
  """The discriminator besides its backbone.

  Attributes:
    weights: of the backbone, those of the adaptation (*paper*); or a run of
      adversarial training, whose discriminator goes on.
    layers: blocks whose tokens are read (APT: 16, 26, 36 of 36).
    scores: 'frames', causal with a logit after each latent frame (*paper*),
      or 'clip', both directions with one logit.
  """

  weights: str
  layers: tuple[int, ...]
  scores: Literal['frames', 'clip'] = 'frames'


def head(config: AAPTConfig, judge: JudgeConfig) -> Discriminator:
  """What turns tokens into logits."""
  sizes = DiscriminatorConfig(
    config.dit,
    judge.layers,
    ffn_dim=4 * config.dit.dim,
    per_frame=judge.scores == 'frames',
  )
  return Discriminator(sizes, jnp.dtype(config.dtype))


def init_head(config: AAPTConfig, judge: JudgeConfig, key: jax.Array):
  """Random parameters of the head."""
  tokens = tuple(jnp.zeros((1, 1, 1, config.dit.dim)) for _ in judge.layers)
  return head(config, judge).init(key, tokens)['params']


def logits(config: AAPTConfig, judge: JudgeConfig, params, text: jax.Array):
  """The discriminator as `(video [B, 1 + F, ...], t [B]) -> logits [B, K]`.

  The first frame of a video is given, to the generator as well; the F others
  are judged. K = F, or 1 for a score of the whole clip.

  Args:
    config: settings.
    judge: of the discriminator.
    params: `{'dit', 'head'}`.
    text: encoded prompts `[B, T, D]`.
  """

  def run(video, t):
    clip = video[:, 1:]
    inputs = aapt_config.clip_inputs(config, video[:, :1], clip)
    x = conditioning.join(config.inputs, clip, inputs)
    if judge.scores == 'frames':
      plan = aapt_config.clip_plan(config, clip)
    else:
      positions = range(clip.shape[1])
      plan = aapt_config.grid_plan(config, positions, clip, None)
    return _judge(config, judge, params, x, t, text, plan)

  return run


def forced_logits(
  config: AAPTConfig, judge: JudgeConfig, params, text: jax.Array, real
):
  """The same where every judged frame has a real past (teacher forcing).

  Args:
    config, judge, params, text: see `logits`.
    real: the real video `[B, 1 + F, H, W, C]`; judged frame i comes after
      its frames before i.
  """
  past = real[:, 1:]
  inputs = aapt_config.clip_inputs(config, real[:, :1], past)

  def run(video, t):
    clip = video[:, 1:]
    x = jnp.concatenate(
      [
        conditioning.join(config.inputs, frames, inputs)
        for frames in (past, clip)
      ],
      1,
    )
    count, height, width = clip.shape[1:4]
    _, rows, columns = config.dit.patch_size
    tokens = (height // rows) * (width // columns)
    ranges = sliding_teacher(
      count, config.chunk, tokens, config.sink, config.window
    )
    positions = [*range(count), *range(count)]
    plan = aapt_config.grid_plan(config, positions, clip, ranges)
    return _judge(config, judge, params, x, t, text, plan, count)

  return run


def _judge(config, judge, params, x, t, text, plan, count=None):
  """Logits of the last `count` frames of x; None: of all."""
  _, features = config.network.apply(
    {'params': params['dit']},
    x,
    t,
    text,
    judge.layers,
    plan,
    method='features',
  )
  if count is not None:
    features = tuple(layer[:, -count:] for layer in features)
  return head(config, judge).apply({'params': params['head']}, features)
