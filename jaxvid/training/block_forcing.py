"""Block Forcing: velocity forcing on real clips, Self-Forcing on its own.

Every step the model learns from real clips with one prompt per chunk, all
chunks in one pass; with an adversary it also rolls out videos of the same
prompts, which a discriminator of whole sequences judges beside the real ones.
Either half can be left out (BlockVid, table 6).

Source: BlockVid, sections 3.1 and 3.2.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvid.data import scripts
from jaxvid.memory.bank_pass import bank_pass
from jaxvid.models import discriminator
from jaxvid.models import text as text_lib
from jaxvid.models.dit import mean_embedding
from jaxvid.objectives import gan, velocity_forcing
from jaxvid.parallel import rules
from jaxvid.stream import stream
from jaxvid.training import optimizer, rollout, student
from jaxvid.training import state as states
from jaxvid.training.block_config import BlockConfig
from jaxvid.training.loop import LoopConfig, TrainTask
from jaxvid.training.state import TrainState
from jaxvid.training.step import Method, Metrics

JUDGE = ('critic', 'judge')


class Prompts(NamedTuple):
  """What the chunks of a batch show.

  Attributes:
    text: encoder output, or that of the empty prompt `[B, n, rows, P]`.
    mean: mean embeddings of the prompts themselves `[B, n, P]`.
  """

  text: jax.Array
  mean: jax.Array


def block_task(config: BlockConfig) -> TrainTask:
  """Trains `{'dit': ...}`, and the judge with an adversary."""
  tokenizer = student.open_tokenizer(config)
  empty = tokenizer([''])
  data = config.data
  return TrainTask(
    init=functools.partial(init, config),
    method=functools.partial(method, config, empty),
    batches=lambda seed, state: scripts.script_batches(
      data.latents,
      tokenizer,
      batch=data.batch,
      frames=data.frames,
      chunk=config.chunk,
      text_drop=data.text_drop,
      seed=seed,
      state=state,
      worker_count=data.worker_count,
    ),
    config=model_config(config),
    load=functools.partial(load, config),
    frozen=lambda: {'text': student.load_encoder(config)},
    rules=rules.TRANSFORMER,
  )


def model_config(config: BlockConfig) -> dict[str, Any]:
  """What is needed to build the model again and to stream it; JSON."""
  memory = {
    name: getattr(config, name)
    for name in ('chunk', 'sink', 'window', 'positions')
  }
  if config.bank is not None:
    memory['bank'] = dataclasses.asdict(config.bank)
  return {**student.model_config(config), 'memory': memory}


def init(config: BlockConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters; `load` gives the real ones."""
  dit_key, judge_key = jax.random.split(key)
  params = student.init(config, dit_key)
  if config.adversary is None:
    return params
  tokens = jnp.zeros((1, 1, 1, config.dit.dim))
  features = (tokens,) * len(config.adversary.layers)
  judge = config.judge.init(judge_key, features)['params']
  return {**params, 'critic': params['dit'], 'judge': judge}


def load(config: BlockConfig) -> dict[str, Any]:
  """The model to start from, the judge's backbone a copy of it."""
  params = student.load(config)
  if config.adversary is None:
    return params
  fresh = jax.jit(functools.partial(init, config))(jax.random.key(0))
  critic = jax.tree.map(jnp.copy, params['dit'])
  return {**params, 'critic': critic, 'judge': fresh['judge']}


def method(config: BlockConfig, empty, settings: LoopConfig) -> Method:
  """How model and judge learn.

  Args:
    config: of the training.
    empty: ids and mask `[1, text_len]` of the empty prompt.
    settings: of the run; its optimiser is the model's.
  """
  tx = optimizer.create(settings.optimizer, settings.steps)
  rate = optimizer.schedule(settings.optimizer, settings.steps)
  adversary = config.adversary
  judge_tx = None
  if adversary is not None:
    judge_tx = optimizer.create(adversary.optimizer, settings.steps)

  def create(params) -> TrainState:
    chosen = {'dit': params['dit']}
    opt_state = {'dit': tx.init(chosen)}
    if judge_tx is not None:
      opt_state['judge'] = judge_tx.init({n: params[n] for n in JUDGE})
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema=jax.tree.map(jnp.copy, chosen),
      opt_state=opt_state,
    )

  def update(state, frozen, batch, key) -> tuple[TrainState, Metrics]:
    model_key, judge_key = jax.random.split(key)
    prompts = encode(config, frozen, batch, empty)
    real = batch['latents'].astype(jnp.float32)
    chosen = {'dit': state.params['dit']}

    def loss(chosen):
      params = {**state.params, **chosen}
      return model_loss(config, params, prompts, real, model_key, state.step)

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(chosen)
    updates, opt_state = tx.update(grads, state.opt_state['dit'], chosen)
    chosen: Any = optax.apply_updates(chosen, updates)
    ema = states.update_ema(state.ema, chosen, state.step, settings.ema_decay)
    state = state.replace(
      params={**state.params, **chosen},
      ema=ema,
      opt_state={**state.opt_state, 'dit': opt_state},
    )
    norm = optax.tree.norm(grads)
    if judge_tx is not None:
      state, more = _judge_turn(
        config, judge_tx, state, prompts, real, judge_key
      )
      metrics, norm = {**metrics, **more}, norm + more['judge_norm']
    metrics |= {
      'loss': value,
      'grad_norm': norm,
      'learning_rate': rate(state.step),
    }
    return state.replace(step=state.step + 1), metrics

  return Method(create, update)


def encode(config: BlockConfig, frozen, batch, empty) -> Prompts:
  """Prompts `[B, n, text_len]` through the frozen encoder."""
  ids, mask = batch['ids'], batch['mask']
  lead = ids.shape[:2]

  def flat(x, row):
    row = jnp.asarray(row, x.dtype)
    return jnp.concatenate([x.reshape(-1, x.shape[-1]), row])

  out = text_lib.encode(
    config.text,
    frozen['text'],
    flat(ids, empty[0]),
    flat(mask, empty[1]),
    jnp.dtype(config.dtype),
  )
  out = jax.lax.stop_gradient(out)
  text = out[:-1].reshape(*lead, *out.shape[1:])
  dropped = batch['dropped'][:, None, None, None]
  return Prompts(jnp.where(dropped, out[-1], text), mean_embedding(text))


def model_loss(config: BlockConfig, params, prompts, real, key, step):
  """Both losses of the model, weighted: a scalar and metrics.

  Args:
    config: settings.
    params: of all trained networks.
    prompts: `Prompts`.
    real: latents `[B, F, H, W, C]`.
    key: randomness of levels, noise and rollout.
    step: number of the step; says whether the adversary has its turn.
  """
  velocity_key, clip_key, gan_key = jax.random.split(key, 3)
  total, metrics = jnp.zeros(()), {}
  if config.velocity_weight:
    value, metrics = velocity_loss(
      config, params['dit'], prompts, real, velocity_key
    )
    metrics = {**metrics, 'velocity': value}
    total += config.velocity_weight * value
  adversary = config.adversary
  if adversary is None:
    return total, metrics

  def judged(dit):
    clip = make_clip(config, dit, prompts, clip_key, gradient=True)
    judging = jax.lax.stop_gradient({n: params[n] for n in JUDGE})
    value, _ = gan.generator_loss(
      logits(config, judging, prompts),
      clip,
      real,
      gan_key,
      adversary.gan,
    )
    return value

  due = step % adversary.every == 0
  value = jax.lax.cond(due, judged, lambda dit: jnp.zeros(()), params['dit'])
  metrics = {**metrics, 'self_forcing': jnp.where(due, value, jnp.nan)}
  return total + adversary.weight * value, metrics


def velocity_loss(config: BlockConfig, dit, prompts: Prompts, real, key):
  """Velocity forcing on real clips, all chunks in one pass."""
  text, forcing = prompts.text, config.flow.forcing
  if forcing == 'teacher':  # The clean clip runs beside it.
    text = jnp.concatenate([text, text], 1)
  if config.bank is None:
    plan = student.causal_plan(config, real, forcing)
  else:
    plan = bank_pass(
      config.memory,
      prompts.mean,
      forcing,
      config.dit.head_dim,
      config.backend,
      config.dit.rope_theta,
      config.dit.rope_grid,
    )
  velocity = student.field(config, dit, text, plan)
  return velocity_forcing.loss(
    velocity,
    real,
    prompts.mean,
    key,
    config.flow,
    config.velocity,
    config.rising,
  )


def make_clip(
  config: BlockConfig, dit, prompts: Prompts, key, gradient: bool
) -> jax.Array:
  """The model's own video of the prompts `[B, F, H, W, C]`.

  Args:
    config: settings.
    dit: the model's parameters.
    prompts: one per chunk.
    key: randomness of noise and exits.
    gradient: whether the end of the clip carries one, as
      `RolloutConfig.gradient_chunks` says.
  """
  depth_key, noise_key = jax.random.split(key)
  settings, size = config.stream, config.adversary.rollout
  by_chunk = jnp.moveaxis(prompts.text, 1, 0)

  def ready(dit):
    return jax.vmap(lambda text: stream.encode_prompt(settings, dit, text))(
      by_chunk
    )

  fixed = jax.lax.stop_gradient(dit)
  state = stream.init(settings, fixed, by_chunk[0], noise_key)
  table = rollout.table_of(settings.schedule, size.chunks)
  depth = rollout.depths(depth_key, size)
  texts = ready(fixed)
  state, record = rollout.generate(
    settings, fixed, state, table, depth, texts=texts
  )
  clip = jax.lax.stop_gradient(rollout.join(record.clean))
  if not gradient:
    return clip
  last = size.gradient_chunks
  texts = jax.tree.map(lambda leaf: leaf[-last:], ready(dit))
  end = rollout.replay(
    settings, dit, None, state.memory, record.last(last), texts
  )
  return jnp.concatenate([clip[:, : -end.shape[1]], end], 1)


def logits(config: BlockConfig, judging, prompts: Prompts):
  """The judge as `(x, t [B]) -> logits`; it sees the whole sequence."""
  params = {'dit': judging['critic'], 'head': judging['judge']}

  def field(x, t):
    return discriminator.discriminate(
      config.network, config.judge, params, x, t, prompts.text
    )

  return field


def _judge_turn(config: BlockConfig, tx, state, prompts, real, key):
  """Updates the judge on what the model makes now."""
  clip_key, loss_key = jax.random.split(key)
  fake = make_clip(config, state.params['dit'], prompts, clip_key, False)
  judging = {name: state.params[name] for name in JUDGE}

  def loss(judging):
    return gan.discriminator_loss(
      logits(config, judging, prompts),
      fake,
      real,
      loss_key,
      config.adversary.gan,
    )

  (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(judging)
  updates, opt_state = tx.update(grads, state.opt_state['judge'], judging)
  judging: Any = optax.apply_updates(judging, updates)
  state = state.replace(
    params={**state.params, **judging},
    opt_state={**state.opt_state, 'judge': opt_state},
  )
  norm = optax.tree.norm(grads)
  return state, {**metrics, 'judge_loss': value, 'judge_norm': norm}


def exported(config: BlockConfig, ema) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship."""
  return student.exported(config, ema, model_config(config))
