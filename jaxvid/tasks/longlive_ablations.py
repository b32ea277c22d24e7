"""Trainings of LongLive's ablations and how they are sampled; for configs.

Stage 1 is trained once per kind of memory; every other training goes on from
it for as many steps, and differs from `longlive` in one thing.
"""

from typing import Any

from jaxvid.tasks import ablations
from jaxvid.training import shapes

# *ours*: optimiser steps of every training; the student's turn is each 5th.
STEPS = 400
_INIT = 'configs/shapes/longlive_init.py:{size}'
_LONG = 'configs/shapes/longlive_long.py:{size}'
RANKS = (2, 4, 8, 32)  # *ours*; 16 is what rank 256 is at 1.3B
# Whole videos of 20 s; as many chunks in all as `longlive`.
_NAIVE = (
  'distill.rollout.chunks=27',
  'distill.rollout.gradient_chunks=27',
  f'loop.steps={STEPS // 4}',
)
# Name -> config, the training it starts from, overrides.
TRAININGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
  'longlive_init': (_INIT, '', ()),
  'longlive_init_sink0': (f'{_INIT},sink0', '', ()),
  'longlive': (_LONG, 'longlive_init', ()),
  'longlive_sink0': (f'{_LONG},sink0', 'longlive_init_sink0', ()),
  'longlive_short': (f'{_LONG},short', 'longlive_init', ()),
  'longlive_naive': (f'{_LONG},naive', 'longlive_init', _NAIVE),
  'longlive_full': (f'{_LONG},full', 'longlive_init', ()),
  'longlive_kv': (_LONG, 'longlive_init', ('distill.long.kv_gradient=true',)),
}
TRAININGS |= {
  f'longlive_rank_{rank}': (
    _LONG,
    'longlive_init',
    (f'distill.lora.rank={rank}', f'distill.lora.alpha={rank}.0'),
  )
  for rank in RANKS
}
OPTIONAL = ('longlive_naive',)  # The paper expects it to be too large.
# How students are sampled: S3W9, or another memory.
STREAM: dict[str, Any] = {
  'schedule': 'self_forcing',
  'commit': 'clean',
  'sink': 3,
  'window': 9,
  'positions': 'relative',
}
NO_SINK = {**STREAM, 'sink': 0, 'window': 12}


def base(name: str, title: str, size: str = '') -> dict[str, Any]:
  """As `ablations.base`, with steps of its own."""
  settings = ablations.base(name, title, size)
  return {**settings, 'train': [f'loop.steps={STEPS}']}


def trainings(size: str, *names: str) -> list[dict[str, Any]]:
  """Trainings by name and what they start from, in order, for a config."""
  size = size or 'nano'
  shapes.sizes(size)
  rows: dict[str, dict[str, Any]] = {}
  for name in names:
    config, before, overrides = TRAININGS[name]
    if before and before not in rows:
      rows |= {row['name']: row for row in trainings(size, before)}
    start = f'runs/ablations/{size}/{before}_s0/weights'
    weights = [f'distill.weights.student={start}'] if before else []
    rows[name] = {
      'name': name,
      'config': config.format(size=size),
      'overrides': [*weights, *overrides],
      'seeds': [0],
      'optional': name in OPTIONAL,
    }
  return list(rows.values())
