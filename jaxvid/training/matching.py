"""One step of distribution matching: the student now and then, the critic.

The critic learns every step, the student every n-th. Both roll out anew, so
the critic always judges what the student makes now; in long tuning each takes
the next clip of the same videos. The whole step is one pure function; the
loop jits it with donated state.

Sources: DMD2; Self-Forcing `model/dmd.py`, `trainer/distillation.py`;
DiagDistill, section 3.3 and appendix G.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvid.models import motion, vae
from jaxvid.models import text as text_lib
from jaxvid.objectives import dmd, flow_distribution, gan, sid
from jaxvid.training import long_tuning, lora, optimizer, scores
from jaxvid.training import state as states
from jaxvid.training.clips import Clip, last_frames, make_clip
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.loop import LoopConfig
from jaxvid.training.scores import Texts
from jaxvid.training.state import TrainState
from jaxvid.training.step import Method, Metrics

GENERATOR = ('dit', 'motion')
CRITIC = ('critic', 'judge')


class Shown(NamedTuple):
  """What an objective is taken of.

  Attributes:
    clip: what the student made.
    texts: its prompts.
    real: real latents, or None.
  """

  clip: Clip
  texts: Texts
  real: jax.Array | None


# (student, videos of long tuning, key, gradient) -> (Shown, the videos).
Source = Callable[[Any, Any, jax.Array, bool], tuple[Shown, Any]]


def method(
  config: DistillConfig,
  settings: LoopConfig,
  negative: tuple[Any, Any],
  codec: vae.VAEConfig | None = None,
) -> Method:
  """How the student and its critic learn.

  Args:
    config: of the distillation.
    settings: of the run; its optimiser is the student's.
    negative: ids and mask `[1, text_len]` of the negative prompt.
    codec: sizes of the frozen VAE, if there is one.
  """
  every = config.generator_every
  turns = max(1, (settings.steps - config.critic_first) // every)
  student_tx = optimizer.create(settings.optimizer, turns)
  critic_tx = optimizer.create(config.critic_optimizer, settings.steps)
  rate = optimizer.schedule(settings.optimizer, turns)

  def create(params) -> TrainState:
    chosen = {name: params[name] for name in GENERATOR}
    judging = {name: params[name] for name in CRITIC}
    opt_state = {
      'student': student_tx.init(chosen),
      'critic': critic_tx.init(judging),
    }
    if config.long is not None:
      opt_state['video'] = long_tuning.empty(config)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema=jax.tree.map(jnp.copy, chosen),
      opt_state=opt_state,
    )

  def update(state, frozen, batch, key) -> tuple[TrainState, Metrics]:
    student_key, critic_key = jax.random.split(key)
    source = _source(config, codec, frozen, batch, negative)

    def turn(state):
      return _student_turn(
        config, settings, student_tx, state, frozen, source, student_key
      )

    since = state.step - config.critic_first
    due = (since >= 0) & (since % every == 0)
    state, metrics = _if_due(due, turn, state)
    state, critic_metrics = _critic_turn(
      config, critic_tx, state, frozen, source, critic_key
    )
    norms = critic_metrics['critic_norm'], metrics['student_norm']
    metrics = {
      **metrics,
      **critic_metrics,
      'loss': critic_metrics['critic_loss'],
      'grad_norm': norms[0] + jnp.where(due, norms[1], 0),
      'learning_rate': rate(jnp.maximum(since, 0) // every),
    }
    return state.replace(step=state.step + 1), metrics

  return Method(create, update)


def _if_due(due: jax.Array, turn, state: TrainState):
  """`turn(state)`; when it is not due, the state and metrics of NaN."""
  turn = jax.jit(turn)  # Traced once, for its shapes and for its branch.
  shapes = jax.eval_shape(turn, state)[1]

  def wait(state):
    # Not a number: left out of the means that are reported.
    return state, jax.tree.map(
      lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes
    )

  return jax.lax.cond(due, turn, wait, state)


def _source(config: DistillConfig, codec, frozen, batch, negative) -> Source:
  """Where clips come from: a rollout each, or the next piece of long ones."""
  if config.long is not None:

    def extend(student, video, key, gradient):
      video, clip, texts = long_tuning.extend(
        config, codec, student, frozen, video, batch, negative, key, gradient
      )
      return Shown(clip, texts, None), video

    return extend
  texts = _encode(config, frozen, batch, negative)
  real = batch.get('latents')
  real = None if real is None else real.astype(jnp.float32)

  def make(student, video, key, gradient):
    inputs = frozen, texts, real
    clip = make_clip(config, codec, student, inputs, key, gradient)
    return Shown(clip, texts, real), video

  return make


def _whole(config: DistillConfig, frozen, params) -> dict[str, Any]:
  """Trained networks as they compute: adapters beside the frozen weights."""
  if config.lora is None:
    return params
  base, scale = frozen['base'], config.lora.scale
  return {
    name: lora.attach(base[name], value, scale) if name in base else value
    for name, value in params.items()
  }


def _encode(config: DistillConfig, frozen, batch, negative) -> Texts:
  """Prompts and the negative prompt through the frozen encoder."""
  size = batch['ids'].shape[0]
  ids, mask = (
    jnp.concatenate([batch[name], jnp.asarray(row, batch[name].dtype)])
    for name, row in zip(('ids', 'mask'), negative, strict=True)
  )
  out = text_lib.encode(
    config.text, frozen['text'], ids, mask, jnp.dtype(config.dtype)
  )
  out = jax.lax.stop_gradient(out)
  empty = jnp.broadcast_to(out[size:], (size, *out.shape[1:]))
  return Texts(out[:size], empty)


def _student_turn(config, settings, tx, state, frozen, source: Source, key):
  """Updates student and motion head; the critic is only asked."""
  chosen = {name: state.params[name] for name in GENERATOR}
  video = state.opt_state.get('video')
  clip_key, loss_key = jax.random.split(key)

  def loss(chosen):
    params = _whole(config, frozen, {**state.params, **chosen})
    shown, after = source(params['dit'], video, clip_key, True)
    value, metrics = student_loss(
      config, frozen, params, state.ema, shown, loss_key
    )
    return value, (metrics, after)

  (value, (metrics, video)), grads = jax.value_and_grad(loss, has_aux=True)(
    chosen
  )
  updates, opt_state = tx.update(grads, state.opt_state['student'], chosen)
  chosen: Any = optax.apply_updates(chosen, updates)
  turn = (state.step - config.critic_first) // config.generator_every
  since = turn - config.average_after
  dit = states.update_ema(
    state.ema['dit'], chosen['dit'], jnp.maximum(since, 0), settings.ema_decay
  )
  # Averaging starts from the weights of that moment.
  dit = jax.tree.map(
    lambda mean, now: jnp.where(since > 0, mean, now), dit, chosen['dit']
  )
  head = motion.update_target(
    state.ema['motion'], chosen['motion'], config.motion_decay
  )
  state = state.replace(
    params={**state.params, **chosen},
    ema={'dit': dit, 'motion': head},
    opt_state=_kept(state.opt_state, 'student', opt_state, video),
  )
  norm = optax.tree.norm(grads)
  return state, {**metrics, 'student_loss': value, 'student_norm': norm}


def _kept(before, name: str, opt_state, video) -> dict[str, Any]:
  """What a run carries, after one of its networks has learned."""
  after = {**before, name: opt_state}
  return after if video is None else {**after, 'video': video}


def _critic_turn(config, tx, state, frozen, source: Source, key):
  """Updates critic and discriminator on what the student makes now."""
  clip_key, loss_key = jax.random.split(key)
  params = _whole(config, frozen, state.params)
  video = state.opt_state.get('video')
  shown, video = source(params['dit'], video, clip_key, False)
  clip, texts, real = shown
  judging = {name: state.params[name] for name in CRITIC}

  def loss(judging):
    judging = _whole(config, frozen, judging)
    if config.objective == 'gan':
      logits = scores.logits(config, judging, texts)
      return gan.discriminator_loss(
        logits, clip.x, last_frames(config, real), loss_key, config.gan
      )
    past = scores.past_of(config, clip.past)
    velocity = scores.velocity(
      config.network, judging['critic'], texts.prompt, past
    )
    return dmd.critic_loss(velocity, clip.x, loss_key, config.score, clip.mask)

  (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(judging)
  updates, opt_state = tx.update(grads, state.opt_state['critic'], judging)
  judging: Any = optax.apply_updates(judging, updates)
  state = state.replace(
    params={**state.params, **judging},
    opt_state=_kept(state.opt_state, 'critic', opt_state, video),
  )
  norm = optax.tree.norm(grads)
  return state, {**metrics, 'critic_loss': value, 'critic_norm': norm}


def student_loss(config: DistillConfig, frozen, params, ema, shown, key):
  """The student's objective.

  Args:
    config: settings.
    frozen: networks that are used and never trained.
    params: of all trained networks.
    ema: averages, of which the motion head's is used.
    shown: the clip, with gradient, and what goes with it.
    key: randomness of the scores.

  Returns:
    A scalar and metrics.
  """
  clip, texts, real = shown
  critic = jax.lax.stop_gradient(params['critic'])
  if config.objective == 'gan':
    judging = {'critic': critic, 'judge': params['judge']}
    logits = scores.logits(config, jax.lax.stop_gradient(judging), texts)
    return gan.generator_loss(
      logits, clip.x, last_frames(config, real), key, config.gan
    )
  past = scores.past_of(config, clip.past)
  fake = scores.denoiser(
    scores.velocity(config.network, critic, texts.prompt, past)
  )
  guided = scores.denoiser(
    scores.guided(config, frozen['teacher'], texts, past)
  )
  if config.objective == 'sid':
    return sid.generator_loss(
      guided, fake, clip.x, key, config.score, clip.mask
    )
  if config.flow is None:
    return dmd.generator_loss(
      guided, fake, clip.x, key, config.score, clip.mask
    )
  fake_x0, real_x0, _ = dmd.predictions(guided, fake, clip.x, key, config.score)
  target = clip.target
  if target is None:
    x = jax.lax.stop_gradient(clip.x)
    target = x - dmd.gradient(x, fake_x0, real_x0, config.score.normalise)
  return flow_distribution.total(
    clip.x,
    fake_x0,
    real_x0,
    target,
    params['motion'],
    ema['motion'],
    config.flow,
    clip.mask,
  )
