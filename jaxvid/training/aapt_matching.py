"""Distribution matching before adversarial training: a warm-up for AAPT.

Adversaries tempt a one-step generator to make videos that hardly move; a
phase of distribution matching before them brings motion first (AAD-1, arXiv
2606.03972). Teacher and critic are bidirectional text-to-video models that
look at the whole video, whose given first frame is not scored. The generator
rolls out as in `aapt_adversarial`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvid.diffusion import solvers
from jaxvid.errors import UserError
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.objectives import dmd
from jaxvid.objectives.dmd import DMDConfig
from jaxvid.parallel import rules
from jaxvid.stream import stream
from jaxvid.training import (
  aapt_config,
  aapt_rollout,
  checkpoint,
  optimizer,
  scores,
  student,
)
from jaxvid.training import state as states
from jaxvid.training.aapt_config import AAPTConfig
from jaxvid.training.distillation import part
from jaxvid.training.loop import LoopConfig, TrainTask
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.state import TrainState
from jaxvid.training.step import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig(AAPTConfig):
  """Distribution matching of a one-step generator.

  Attributes:
    teacher: weights of the bidirectional text-to-video teacher; the critic
      starts from them.
    teacher_dit: sizes of both; None = the generator's, without the channels
      that show it frames.
    guidance: its weight w in u + w (c - u).
    negative: its prompt u.
    score: noise levels and form of the scores.
    generator_every: critic steps per generator step.
    critic_optimizer: of the critic; the loop's is the generator's.
  """

  teacher: str
  teacher_dit: DiTConfig | None = None
  guidance: float = 4.0
  negative: str = ''
  score: DMDConfig = dataclasses.field(default_factory=DMDConfig)
  generator_every: int = 5
  critic_optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )

  def __post_init__(self):
    super().__post_init__()
    if self.generator_every < 1:
      raise UserError(
        f'generator_every must be >= 1, not {self.generator_every}'
      )

  @property
  def judge_dit(self) -> DiTConfig:
    """Sizes of teacher and critic."""
    own = dataclasses.replace(self.dit, in_dim=self.dit.out_dim)
    return self.teacher_dit or own

  @property
  def judge_network(self) -> DiT:
    return DiT(self.judge_dit, jnp.dtype(self.dtype), self.scan, self.remat)


def matching_task(config: MatchingConfig) -> TrainTask:
  """Trains `{'dit', 'critic'}`."""
  tokenizer = student.open_tokenizer(config)
  negative = tokenizer([config.negative])
  return TrainTask(
    init=functools.partial(init, config),
    method=functools.partial(method, config, negative),
    batches=functools.partial(aapt_config.batches, config, tokenizer),
    config=aapt_config.streamed(config),
    load=functools.partial(load, config),
    frozen=functools.partial(frozen, config),
    rules=rules.TRANSFORMER,
  )


def init(config: MatchingConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters; `load` gives the real ones."""
  keys = jax.random.split(key)
  x = jnp.zeros((1, 1, 2, 2, config.dit.out_dim))
  text = jnp.zeros((1, 1, config.dit.text_dim))
  critic = config.judge_network.init(keys[1], x, jnp.zeros(1), text)
  return {**student.init(config, keys[0]), 'critic': critic['params']}


def load(config: MatchingConfig) -> dict[str, Any]:
  """Generator of an earlier stage; the critic starts as the teacher."""
  params = {
    'dit': aapt_config.load(config),
    'critic': part(config.teacher, 'dit', config.scan),
  }
  shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
  checkpoint.check_tree(params['critic'], shapes['critic'], config.teacher)
  return params


def frozen(config: MatchingConfig) -> dict[str, Any]:
  """Networks that are used and never trained."""
  teacher = part(config.teacher, 'dit', config.scan)
  return {**aapt_config.text_encoder(config), 'teacher': teacher}


def method(config: MatchingConfig, negative, settings: LoopConfig) -> Method:
  """How generator and critic learn in turn."""
  every = config.generator_every
  turns = max(1, settings.steps // every)
  txs = {
    'dit': optimizer.create(settings.optimizer, turns),
    'critic': optimizer.create(config.critic_optimizer, settings.steps),
  }
  rate = optimizer.schedule(settings.optimizer, turns)

  def create(params) -> TrainState:
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema={'dit': jax.tree.map(jnp.copy, params['dit'])},
      opt_state={name: tx.init(params[name]) for name, tx in txs.items()},
    )

  learn = functools.partial(_learn, txs)

  def update(state, frozen, batch, key):
    text = student.encode(config, frozen, batch['ids'], batch['mask'])
    empty = student.encode(config, frozen, *negative)
    texts = scores.Texts(text, jnp.broadcast_to(empty, text.shape))
    real = batch['latents'].astype(jnp.float32)
    run = functools.partial(_roll, config, state.params['dit'], text, real)
    student_key, critic_key = jax.random.split(key)

    def turn(state):
      loss = functools.partial(
        generator_loss, config, frozen, state.params, texts, real, student_key
      )
      state, out = learn(state, 'dit', loss)
      ema = states.update_ema(
        state.ema['dit'],
        state.params['dit'],
        state.step // every,
        settings.ema_decay,
      )
      return state.replace(ema={'dit': ema}), out

    def wait(state):
      # Not a number: left out of the means that are reported.
      return state, (jnp.float32(jnp.nan), jnp.float32(jnp.nan))

    due = state.step % every == 0
    state, (value, norm) = jax.lax.cond(due, turn, wait, state)
    roll_key, loss_key = jax.random.split(critic_key)
    _, video = run(roll_key)
    loss = functools.partial(critic_loss, config, texts, video, loss_key)
    state, (critic, critic_norm) = learn(state, 'critic', loss)
    metrics = {
      'loss': critic,
      'student_loss': value,
      'grad_norm': critic_norm + jnp.where(due, norm, 0),
      'learning_rate': rate(state.step // every),
    }
    return state.replace(step=state.step + 1), metrics

  return Method(create, update)


def _learn(txs, state: TrainState, name: str, loss):
  """One step of one network; the loss, and the norm of its gradient."""
  value, grads = jax.value_and_grad(loss)(state.params[name])
  updates, opt = txs[name].update(
    grads, state.opt_state[name], state.params[name]
  )
  new = optax.apply_updates(state.params[name], updates)
  state = state.replace(
    params={**state.params, name: new},
    opt_state={**state.opt_state, name: opt},
  )
  return state, (value, optax.tree.norm(grads))


def _roll(config: MatchingConfig, params, text, real, key):
  """The stream before a video, and the video made from a real first frame."""
  settings = config.settings(*real.shape[2:4])
  first, frames = real[:, :1], real.shape[1] - 1
  state = aapt_rollout.begin(settings, params, text, first, key)
  clip = aapt_rollout.generate(settings, params, state, frames)[1]
  return state, jnp.concatenate([first, clip], 1)


def _mask(video):
  """The given frame is not scored."""
  return jnp.broadcast_to(jnp.arange(video.shape[1]) > 0, video.shape[:2])


def generator_loss(
  config: MatchingConfig, frozen, params, texts, real, key, dit
):
  """What moves the generator `dit` towards the teacher's distribution."""
  roll_key, loss_key = jax.random.split(key)
  settings = config.settings(*real.shape[2:4])
  state, video = _roll(config, params['dit'], texts.prompt, real, roll_key)
  ready = stream.encode_prompt(settings, dit, texts.prompt)
  new = aapt_rollout.replay(settings, dit, ready, state, video[:, 1:])
  x = jnp.concatenate([real[:, :1], new], 1)
  network = config.judge_network
  critic = jax.lax.stop_gradient(params['critic'])
  fake = scores.velocity(network, critic, texts.prompt)
  return dmd.generator_loss(
    scores.denoiser(_guided(config, frozen['teacher'], texts)),
    scores.denoiser(fake),
    x,
    loss_key,
    config.score,
    _mask(x),
  )[0]


def _guided(config: MatchingConfig, params, texts: scores.Texts):
  """The teacher's velocity with guidance."""
  network = config.judge_network
  cond = scores.velocity(network, params, texts.prompt)
  if config.guidance == 1.0:
    return cond
  uncond = scores.velocity(network, params, texts.negative)

  def field(x, t):
    return solvers.guide(cond(x, t), uncond(x, t), config.guidance)

  return field


def critic_loss(config: MatchingConfig, texts, video, key, critic):
  """Flow-matching error of the critic on what the generator makes."""
  velocity = scores.velocity(config.judge_network, critic, texts.prompt)
  video = jax.lax.stop_gradient(video)
  return dmd.critic_loss(velocity, video, key, config.score, _mask(video))[0]


def exported(
  config: MatchingConfig, ema: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship: the generator and its text encoder."""
  return student.exported(config, ema, aapt_config.streamed(config))
