"""Times a training step of the transformer with random weights.

Flow matching on random latents, AdamW, layers scanned: step time, tokens per
second, share of what the card could do, memory. Needs no data package.
"""

import dataclasses
import functools
import pathlib
import time
from typing import Any, Literal

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    size: 'tiny', 'small', '1.3b', '8b' or '14b'.
    height: of the videos in pixels.
    width: of the videos in pixels.
    frames: latent frames of a clip.
    batch: clips per step.
    dtype: of the computation; empty: bfloat16 on a GPU, float32 elsewhere.
    remat: a policy of `jax.checkpoint_policies`; empty keeps everything.
    backend: of attention; empty: what suits the device.
    steps: timed steps.
    output: JSON file; empty prints only.
  """

  size: str = '1.3b'
  height: int = 480
  width: int = 832
  frames: int = 21
  batch: int = 1
  dtype: Literal['', 'float32', 'bfloat16'] = ''
  remat: str = 'nothing_saveable'
  backend: str = ''
  steps: int = 5
  output: str = ''


def run(config: Config) -> None:
  """Measures, prints the figures, writes JSON if asked to."""
  if min(config.steps, config.batch, config.frames) < 1:
    raise UserError('steps, batch and frames must be at least 1')
  if config.output:
    files.check_writable(pathlib.Path(config.output))
  report = measure(config)
  for name, value in report['rows'][0].items():
    print(
      f'{name}: {value:.4g}'
      if isinstance(value, float)
      else (f'{name}: {value}')
    )
  if config.output:
    files.write_json(config.output, report)


def measure(config: Config) -> dict[str, Any]:
  """The report, with one row of figures."""
  import jax

  from jaxvid.evaluation import roofline
  from jaxvid.tasks import speed_measure, speed_rig

  if config.size not in speed_rig.SIZES:
    known = ', '.join(speed_rig.SIZES)
    raise UserError(f'size must be one of {known}, not {config.size!r}')
  dit, step, state, batch = _program(config)
  say(f'training step of size {config.size}')
  began = time.perf_counter()
  program = step.lower(state, batch, jax.random.key(0)).compile()
  compiled = time.perf_counter() - began
  state, loss = program(state, batch, jax.random.key(0))
  loss.block_until_ready()
  began = time.perf_counter()
  for i in range(config.steps):
    state, loss = program(state, batch, jax.random.key(i + 1))
  loss.block_until_ready()
  seconds = (time.perf_counter() - began) / config.steps
  tokens = config.frames * (config.height // 16) * (config.width // 16)
  work = roofline.forward(dit.config, tokens, tokens)
  machine = speed_measure.machine()
  row: dict[str, Any] = {
    'size': config.size,
    'tokens': config.batch * tokens,
    'step_s': seconds,
    'tokens_per_s': config.batch * tokens / seconds,
    # Forward, and twice that for the gradients of inputs and weights.
    'operations_per_s': 3 * config.batch * work.operations / seconds,
    'compile_s': compiled,
    'loss_is_finite': bool(abs(float(loss)) < float('inf')),
    **speed_measure.memory(),
  }
  card = roofline.card_of(machine['device'])
  if card is not None:
    passes = 4 if config.remat else 3
    row['share_of_datasheet'] = row['operations_per_s'] / card.datasheet
    least = passes * config.batch * roofline.limit_s(work, card)
    row['share_of_limit'] = least / seconds
  settings = dataclasses.asdict(config)
  return {'machine': machine, 'settings': settings, 'rows': [row]}


def _program(config: Config):
  """The network, its jitted step, a state and a batch."""
  import jax
  import jax.numpy as jnp
  import optax

  from jaxvid.convert import specs
  from jaxvid.diffusion import flow
  from jaxvid.models.dit import DiT
  from jaxvid.models.layers import stack_layers
  from jaxvid.tasks import speed, speed_rig

  speed_of = speed.Speed(dtype=config.dtype)
  dit = DiT(
    speed_rig.SIZES[config.size],
    jnp.dtype(speed_rig.compute_dtype(speed_of)),
    remat=config.remat or None,
    backend=config.backend or speed_rig.default_backend(),
  )
  sizes = dit.config
  shapes = specs.abstract('dit', sizes)
  params = speed_rig.random_tree(jax.eval_shape(stack_layers, shapes))
  optimizer = optax.adamw(1e-5)
  latents = (config.frames, config.height // 8, config.width // 8)
  shape = (config.batch, *latents, sizes.out_dim)
  batch = {
    'x0': jax.random.normal(jax.random.key(1), shape),
    'text': jax.random.normal(
      jax.random.key(2), (config.batch, sizes.text_len, sizes.text_dim)
    ),
  }

  def loss_of(params, batch, key):
    first, second = jax.random.split(key)
    noise = jax.random.normal(first, shape)
    sigma = jax.random.uniform(second, (config.batch,))
    x = flow.add_noise(batch['x0'], noise, sigma)
    v, _ = dit.apply({'params': params}, x, 1000 * sigma, batch['text'])
    return jnp.mean((v - flow.training_target(batch['x0'], noise)) ** 2)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, batch, key):
    params, slots = state
    loss, gradient = jax.value_and_grad(loss_of)(params, batch, key)
    updates, slots = optimizer.update(gradient, slots, params)
    return (optax.apply_updates(params, updates), slots), loss

  return dit, step, (params, jax.jit(optimizer.init)(params)), batch
