"""Times what a change of the prompt adds to a clip, by what becomes of memory.

Ticks alone: how long a clip takes with one change in its middle, less how long
it takes without. Rounds alternate, so that a busy machine meets all alike.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation import statistics
from jaxvid.stream import stream, switch
from jaxvid.stream.switch import CACHES, SwitchConfig
from jaxvid.tasks import benchmark, generate, player, random_bundle
from jaxvid.tasks.compare import System
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    systems: what is timed.
    caches: what becomes of the memory, one row each.
    random: random weights of this size (`random_bundle.SIZES`) instead of the
      systems' own.
    seconds: of video; the prompt changes in the middle.
    height: of the frames; 0 for the model's own.
    width: of the frames; 0 for the model's own.
    dtype: of the computation; empty: bfloat16 on a GPU, float32 elsewhere.
    repeats: clips of every kind that are timed, after one that is not.
    target: share that may be added at most; 0 = none.
    output: JSON file; empty prints only.
  """

  systems: tuple[System, ...]
  caches: tuple[str, ...] = CACHES
  random: str = ''
  seconds: float = 10.0
  height: int = 0
  width: int = 0
  dtype: str = ''
  repeats: int = 5
  target: float = 0.0
  output: str = ''

  def __post_init__(self):
    if not self.systems or self.repeats < 1:
      raise UserError('systems must name at least one, repeats be >= 1')
    for cache in self.caches:
      SwitchConfig(cache)


def run(config: Config) -> None:
  """Times all rows and prints them; writes JSON if asked to."""
  if config.output:
    files.check_writable(config.output)
  rows = [
    row
    for system in config.systems
    for row in measured(config, system.name, clips(config, system.stream))
  ]
  for row in rows:
    added = 100 * np.array([row['added'][n] for n in ('value', 'low', 'high')])
    text = (
      f'{row["system"]}, {row["cache"]}: {row["plain_s"]:.3f} s without a '
      f'change, {added[0]:+.2f} % with one [{added[1]:.2f}, {added[2]:.2f}]'
    )
    if config.target and row['cache'] == 'recache':
      met = 'met' if row['added']['value'] <= config.target else 'missed'
      text += f'; target {100 * config.target:g} % {met}'
    print(text)
  if config.output:
    report = {
      'settings': dataclasses.asdict(config),
      'machine': benchmark.machine(),
      'rows': rows,
    }
    files.write_json(config.output, report)
    say(f'report: {config.output}')


def measured(
  config: Config, name: str, timed: Callable[[str], float]
) -> list[dict[str, Any]]:
  """One row per cache: seconds without a change, and the share one adds."""
  kinds = ('', *config.caches)
  say(f'warming up {name}')
  for kind in kinds:
    timed(kind)
  rounds = []
  for i in range(config.repeats):
    say(f'{name}: round {i + 1}/{config.repeats}')
    rounds.append({kind: timed(kind) for kind in kinds})
  plain = float(np.median([times[''] for times in rounds]))
  return [
    {
      'system': name,
      'cache': cache,
      'plain_s': round(plain, 4),
      'added': statistics.mean(
        [times[cache] / times[''] - 1 for times in rounds]
      )._asdict(),
    }
    for cache in config.caches
  ]


def clips(config: Config, asked: generate.Config) -> Callable[[str], float]:
  """A function that makes a clip, by cache ('' = no change): its seconds."""
  asked = dataclasses.replace(
    asked,
    seconds=config.seconds,
    height=config.height,
    width=config.width,
    dtype=config.dtype,
    prompt='any',
    output=asked.output or 'outputs/switch.mp4',
  )
  request = generate.check(asked)
  bundle = (
    random_bundle.make(config.random)
    if config.random
    else player.open_model(asked)
  )
  size = player.picture_size(asked, bundle)
  settings = player.stream_settings(asked, request, bundle, size, None)
  params = bundle.place('dit', settings.dtype)
  dit = settings.config
  keys = jax.random.split(jax.random.key(asked.seed), 4)
  # Noise for prompts: it takes as long as words.
  first, second, negative = (
    jax.random.normal(key, (1, dit.text_len, dit.text_dim)) for key in keys[:3]
  )
  negative = negative if settings.guided else None
  init = jax.jit(stream.init, static_argnums=0)
  encode = jax.jit(stream.encode_prompt, static_argnums=0)
  step, remember = (
    stream.jitted_step(settings),
    switch.jitted_remember(settings),
  )
  count = request.num_chunks
  half = count // 2
  plain = [stream.chunk_ticks(request.schedule, i) for i in range(count)]
  changed = (
    plain[:half] + plain[: count - half] if asked.switch.again else plain
  )

  def timed(cache: str) -> float:
    state = init(settings, params, first, keys[3], negative)
    past = switch.new_past(settings, state)
    text = jax.block_until_ready(encode(settings, params, second, negative))
    jax.block_until_ready((state, past))
    began = time.perf_counter()
    for i, ticks in enumerate(changed if cache else plain):
      if cache and i == half:
        state, past = switch.switch(
          settings, params, state, past, text, SwitchConfig(cache)
        )
      state, latents = step(params, state, ticks)
      past = remember(past, state, latents)
    jax.block_until_ready((latents, state.memory))
    return time.perf_counter() - began

  return timed
