"""AAPT's adversarial stage: student forcing, teacher forcing, long videos.

One step makes a video, segment by segment. Each segment is rolled out without
gradient, judged, and gives a gradient to the discriminator and, by the pass
over its known ticks, to the generator; then the next one goes on from the
memory it left, detached. The sums move both networks once.
Source: AAPT supplement D and F.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from jaxvid.diffusion import flow
from jaxvid.errors import UserError
from jaxvid.objectives import gan
from jaxvid.objectives.gan import GANConfig
from jaxvid.parallel import rules
from jaxvid.stream import stream
from jaxvid.training import (
  aapt_config,
  aapt_judge,
  aapt_rollout,
  checkpoint,
  optimizer,
  step,
  student,
)
from jaxvid.training import state as states
from jaxvid.training.aapt_config import AAPTConfig
from jaxvid.training.aapt_judge import JudgeConfig
from jaxvid.training.loop import LoopConfig, TrainTask
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.state import TrainState
from jaxvid.training.step import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialConfig(AAPTConfig):
  """Adversarial training of a one-step generator.

  Attributes:
    judge: the discriminator.
    gan: losses and penalties.
    forcing: 'student' rolls out; 'teacher' shows the generator real frames
      and makes all next ones in parallel (supplement F; it fails there).
    gradient: of a rollout: through its keys and values, 'memory', or also
      through recycled frames, 'all', which takes a backward pass through
      every step.
    extensions: further segments of a video; 0 = the first alone.
    overlap: latent frames of a segment that the next one's judge sees too.
    judge_optimizer: of the discriminator; the loop's is the generator's.
    gather: hold all of the generator on every device while it rolls out, in
      the type of the computation (*paper*: ZeRO 2), instead of collecting
      its parameters for every frame.
  """

  judge: JudgeConfig
  gan: GANConfig = gan.AAPT
  forcing: Literal['student', 'teacher'] = 'student'
  gradient: Literal['memory', 'all'] = 'memory'
  extensions: int = 0
  overlap: int = 4
  judge_optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  gather: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.extensions < 0 or self.overlap < 1:
      raise UserError(
        f'extensions={self.extensions} must be >= 0 and '
        f'overlap={self.overlap} >= 1'
      )
    if self.extensions and self.forcing == 'teacher':
      raise UserError('only student forcing makes videos longer than the data')
    for frames in {n for s in self.stages for x in s.sources for n in x.frames}:
      self._check_length(frames)

  def _check_length(self, frames: int) -> None:
    parts = [frames - 1]
    if self.extensions:
      parts.append(frames - 1 - self.overlap)
    for count in parts:
      if count < 1 or count % self.chunk:
        raise UserError(
          f'clips of {frames} latent frames: {count} are made at a time'
          f'{f" (overlap {self.overlap})" if self.extensions else ""}, which '
          f'must be a multiple of chunk={self.chunk}'
        )


def adversarial_task(config: AdversarialConfig) -> TrainTask:
  """Trains `{'dit', 'judge'}`."""
  tokenizer = student.open_tokenizer(config)
  return TrainTask(
    init=functools.partial(init, config),
    method=functools.partial(method, config),
    batches=functools.partial(aapt_config.batches, config, tokenizer),
    config=aapt_config.streamed(config),
    load=functools.partial(load, config),
    frozen=lambda: aapt_config.text_encoder(config),
    rules=rules.FULLY_SHARDED,
  )


def init(config: AdversarialConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters; `load` gives the real ones."""
  keys = jax.random.split(key, 3)
  judge = {
    'dit': student.init(config, keys[1])['dit'],
    'head': aapt_judge.init_head(config, config.judge, keys[2]),
  }
  return {**student.init(config, keys[0]), 'judge': judge}


def load(config: AdversarialConfig) -> dict[str, Any]:
  """Generator and discriminator from earlier stages.

  A run of this task gives its whole discriminator, other weights give its
  backbone alone.
  """
  where = config.judge.weights
  _, found = checkpoint.load_params(where, 'params', dtype='float32')
  if 'judge' in found:
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    judge = found['judge']
    checkpoint.check_tree(judge, shapes['judge'], where)
  else:
    judge = {
      'dit': aapt_config.load(config, where),
      'head': aapt_judge.init_head(config, config.judge, jax.random.key(0)),
    }
  return {'dit': aapt_config.load(config), 'judge': judge}


def method(config: AdversarialConfig, settings: LoopConfig) -> Method:
  """How generator and discriminator learn from the same videos."""
  txs = {
    'dit': optimizer.create(settings.optimizer, settings.steps),
    'judge': optimizer.create(config.judge_optimizer, settings.steps),
  }
  rate = optimizer.schedule(settings.optimizer, settings.steps)

  def create(params) -> TrainState:
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema={'dit': jax.tree.map(jnp.copy, params['dit'])},
      opt_state={name: tx.init(params[name]) for name, tx in txs.items()},
    )

  def update(state, frozen, batch, key):
    run = functools.partial(gradients, config, frozen)
    (value, metrics), grads = step.accumulate(
      run, state.params, batch, key, settings.microbatches
    )
    params, opt_state = {}, {}
    for name, tx in txs.items():
      updates, opt_state[name] = tx.update(
        grads[name], state.opt_state[name], state.params[name]
      )
      params[name] = optax.apply_updates(state.params[name], updates)
    ema = states.update_ema(
      state.ema['dit'], params['dit'], state.step, settings.ema_decay
    )
    norms = {f'{name}_norm': optax.tree.norm(g) for name, g in grads.items()}
    metrics = {
      **metrics,
      **norms,
      'loss': value,
      'grad_norm': sum(norms.values()),
      'learning_rate': rate(state.step),
    }
    state = TrainState(state.step + 1, params, {'dit': ema}, opt_state)
    return state, metrics

  return Method(create, update)


def gradients(config: AdversarialConfig, frozen, params, batch, key):
  """Losses and gradients of one batch.

  Returns:
    (loss, metrics) and gradients like `params`.
  """
  text = student.encode(config, frozen, batch['ids'], batch['mask'])
  real = batch['latents'].astype(jnp.float32)
  if config.forcing == 'teacher':
    return _teacher_forced(config, params, text, real, key)
  settings = config.settings(*real.shape[2:4])
  stream_key, *keys = jax.random.split(key, config.extensions + 2)
  first = real[:, :1]
  rolling = params['dit']
  if config.gather:
    rolling = whole(rolling, config.dtype)
  state = aapt_rollout.begin(settings, rolling, text, first, stream_key)
  run = functools.partial(_segment, config, settings, params, rolling, text)
  state, video, total = run(state, first, real, keys[0])
  if not config.extensions:
    return total

  def extend(carry, key):
    state, tail, total = carry
    # The first latent of a real clip stands for one frame, others for four,
    # and in the middle of a video all do: real clips begin one frame later.
    state, video, more = run(state, tail, real[:, 1:], key)
    total = jax.tree.map(jnp.add, total, more)
    return (state, video[:, -config.overlap :], total), None

  carry = state, video[:, -config.overlap :], total
  (_, _, total), _ = jax.lax.scan(extend, carry, jnp.stack(keys[1:]))
  return jax.tree.map(lambda leaf: leaf / (config.extensions + 1), total)


def whole(params, dtype: str):
  """All of a network on every device; matrices in the computation's type."""

  def gather(path, leaf):
    first, last = (str(getattr(path[at], 'key', '')) for at in (0, -1))
    if last == 'kernel' and not first.startswith('time_'):  # float32 always
      leaf = leaf.astype(dtype)
    return jax.lax.with_sharding_constraint(leaf, PartitionSpec())

  return jax.tree.map_with_path(gather, jax.lax.stop_gradient(params))


def _segment(config, settings, params, rolling, text, state, before, real, key):
  """One segment of a video.

  Args:
    config: settings.
    settings: of the stream.
    params: of both networks.
    rolling: the generator's, as the rollout wants them.
    text: encoded prompts.
    state: the stream before it.
    before: the newest frames before it, which are judged too; the first of
      them is given `[B, n, H, W, C]`.
    real: a real video as long as what is judged.
    key: randomness of the losses.

  Returns:
    The stream after it, what is judged, and losses and gradients.
  """
  frames = real.shape[1] - before.shape[1]
  after, clip = aapt_rollout.generate(settings, rolling, state, frames)

  def make(dit):
    ready = stream.encode_prompt(settings, dit, text)
    if config.gradient == 'memory':
      new = aapt_rollout.replay(settings, dit, ready, state, clip)
    else:
      new = aapt_rollout.through_all(settings, dit, ready, state, frames)
    return jnp.concatenate([before, new], 1)

  def judge(params):
    return aapt_judge.logits(config, config.judge, params, text)

  video = jnp.concatenate([before, clip], 1)
  out = _losses(config, params, make, judge, video, real, key)
  return after, video, out


def _teacher_forced(config, params, text, real, key):
  """All next frames of a real video in parallel; losses and gradients."""
  noise_key, key = jax.random.split(key)
  first, clip = real[:, :1], real[:, 1:]
  noise = jax.random.normal(noise_key, clip.shape)
  t = jnp.full(clip.shape[:2], 1000.0)

  def make(dit):
    velocity = aapt_config.field(config, dit, text, first, clip)(noise, t)
    new = flow.to_x0(noise, velocity, flow.sigma_at(t))
    return jnp.concatenate([first, new], 1)

  def judge(params):
    if config.judge.scores == 'clip':
      return aapt_judge.logits(config, config.judge, params, text)
    return aapt_judge.forced_logits(config, config.judge, params, text, real)

  video = make(jax.lax.stop_gradient(params['dit']))
  return _losses(config, params, make, judge, video, real, key)


def _losses(config, params, make, judge, video, real, key):
  """Both networks' losses on one made and one real video, with gradients.

  Args:
    config: settings.
    params: of both networks.
    make: the generator's parameters -> the made video, with gradient.
    judge: the discriminator's parameters -> its logits as a function.
    video: the made video, without gradient.
    real: the real one.
    key: randomness of time steps and penalties.
  """
  generator_key, judge_key = jax.random.split(key)
  video, frozen = jax.lax.stop_gradient((video, params['judge']))

  def generator(dit):
    return gan.generator_loss(
      judge(frozen), make(dit), real, generator_key, config.gan
    )

  def discriminator(params):
    return gan.discriminator_loss(
      judge(params), video, real, judge_key, config.gan
    )

  grads, values, metrics = {}, {}, {}
  for name, loss in (('dit', generator), ('judge', discriminator)):
    (values[name], more), grads[name] = jax.value_and_grad(loss, has_aux=True)(
      params[name]
    )
    metrics |= more
  return (sum(values.values()), metrics), grads


def exported(
  config: AdversarialConfig, ema: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship: the generator and its text encoder."""
  return student.exported(config, ema, aapt_config.streamed(config))
