"""The training task of few-step students: what it needs, and where from.

One table of choices covers the published recipes (architecture.md): a
schedule, a memory, where the history of a rollout comes from, and an
objective. `matching.py` holds the step itself.

Sources: DMD and DMD2 (Yin et al. 2024), CausVid, Self-Forcing, DiagDistill.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.data import loaders
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.models import motion
from jaxvid.models.layers import stack_layers, unstack_layers
from jaxvid.parallel import rules
from jaxvid.training import (
  autoencoder,
  checkpoint,
  long_tuning,
  lora,
  matching,
)
from jaxvid.training.distill_config import DistillConfig
from jaxvid.training.loop import TrainTask


def distill_task(config: DistillConfig) -> TrainTask:
  """Trains `{'dit', 'critic', 'motion', 'judge'}`, as far as they are used."""
  tokenizer = Tokenizer.load(config.tokenizer, config.dit.text_len)
  # UMT5's table has more rows than its tokenizer has pieces.
  if tokenizer.vocab_size > config.text.vocab_size:
    raise UserError(
      f'{config.tokenizer} has {tokenizer.vocab_size} tokens, the text '
      f'encoder {config.text.vocab_size} (text.vocab_size)'
    )
  negative = tokenizer([config.negative])
  codec = None
  if config.vae:
    codec = autoencoder.load_vae(config.vae)[0]
  return TrainTask(
    init=functools.partial(init, config),
    method=lambda settings: matching.method(config, settings, negative, codec),
    batches=functools.partial(_batches, config, tokenizer),
    config=model_config(config),
    load=functools.partial(load, config),
    frozen=functools.partial(frozen, config),
    rules=long_tuning.RULES + rules.TRANSFORMER,
  )


def _batches(config: DistillConfig, tokenizer, seed, state):
  data = config.data
  if not data.latents:
    pairs = config.long is not None
    read = loaders.pair_batches if pairs else loaders.prompt_batches
    return read(
      data.prompts,
      tokenizer,
      batch=data.batch,
      seed=seed,
      state=state,
      worker_count=data.worker_count,
    )
  return loaders.latent_batches(
    data.latents,
    tokenizer,
    batch=data.batch,
    frames=config.rollout.chunks * config.chunk,
    text_drop=0.0,
    seed=seed,
    state=state,
    worker_count=data.worker_count,
  )


def model_config(config: DistillConfig) -> dict[str, Any]:
  """What is needed to build and stream the student again; JSON."""
  return {
    'dit': dataclasses.asdict(config.dit),
    'text': dataclasses.asdict(config.text),
    'schedule': dataclasses.asdict(config.schedule),
    'digits': config.digits,
    'memory': {
      'chunk': config.chunk,
      'sink': config.sink,
      'window': config.window,
      'positions': config.positions,
    },
  }


def init(config: DistillConfig, key: jax.Array) -> dict[str, Any]:
  """Random parameters of all trained networks; `load` gives the real ones."""
  keys = jax.random.split(key, 4)
  x = jnp.zeros((1, 1, 2, 2, config.dit.in_dim))
  text = jnp.zeros((1, 1, config.dit.text_dim))
  inputs = (x, jnp.zeros(1), text)
  whole = {
    name: lambda i=i: config.network.init(keys[i], *inputs)['params']
    for i, name in enumerate(('dit', 'critic'))
  }
  params: dict[str, Any] = {'motion': {}, 'judge': {}}
  for i, (name, make) in enumerate(whole.items()):
    if config.lora is None:
      params[name] = make()
    else:
      params[name] = lora.create(config.lora, jax.eval_shape(make), keys[i])
  if config.flow is not None:
    channels = config.dit.out_dim
    params['motion'] = motion.init(config.flow.motion, keys[2], channels)
  if config.layers:
    tokens = tuple(jnp.zeros((1, 1, 1, config.dit.dim)) for _ in config.layers)
    params['judge'] = config.judge.init(keys[3], tokens)['params']
  return params


def load(config: DistillConfig) -> dict[str, Any]:
  """Parameters to start from: pretrained networks, fresh small heads."""
  fresh = jax.jit(functools.partial(init, config))(jax.random.key(0))
  return fresh if config.lora is not None else {**fresh, **base(config)}


def base(config: DistillConfig) -> dict[str, Any]:
  """Student and critic before this training; UserError if they do not fit."""
  where = config.weights
  places = {'dit': where.student, 'critic': where.critic or where.teacher}
  whole = dataclasses.replace(config, lora=None)
  shapes = jax.eval_shape(functools.partial(init, whole), jax.random.key(0))
  params = {}
  for name, place in places.items():
    params[name] = part(place, 'dit', config.scan)
    checkpoint.check_tree(params[name], shapes[name], place)
  return params


def frozen(config: DistillConfig) -> dict[str, Any]:
  """Networks that are used and never trained."""
  where = config.weights
  held = {
    'teacher': part(where.teacher, 'dit', config.scan),
    'text': part(where.text or where.student, 'text', config.scan),
  }
  if config.flow is not None and config.target == 'causal':
    held['causal'] = part(where.causal or where.student, 'dit', config.scan)
  if config.lora is not None:
    held['base'] = base(config)
  if config.vae:
    held['vae'] = checkpoint.load_params(config.vae, dtype='float32')[1]
  return held


def part(path: str, name: str, scan: bool) -> Any:
  """One network of a weights folder or run, in the wanted layout.

  Raises:
    UserError: nothing there, or no such network in it.
  """
  head, params = checkpoint.load_params(path, dtype='float32')
  if name not in params and name not in head:
    have = ', '.join(sorted(params))
    raise UserError(f"{path} holds no '{name}' (it holds {have})")
  params = unstack_layers(params.get(name, params))
  return stack_layers(params) if scan else params


def exported(
  config: DistillConfig, ema: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
  """Config and parameters to ship: the averaged student and its encoder.

  Adapters are merged into the weights that they were trained beside.
  """
  text = part(config.weights.text or config.weights.student, 'text', False)
  dit = ema['dit']
  if config.lora is not None:
    student = part(config.weights.student, 'dit', config.scan)
    dit = lora.merge(student, dit, config.lora.scale)
  return model_config(config), {'dit': unstack_layers(dit), 'text': text}
