"""The models of BlockVid's ablations, and how they stream; for configs.

Stage 1 is trained once; stage 2 goes on from it, once per row of a table. The
full recipe has three seeds, its rivals one. What is a matter of the memory or
of the starting noise is swept on the full recipe's models. Models of size
`small` go on from the causal model that ships, whose training had scripts of
two shots, and skip stage 1.
"""

from collections.abc import Sequence
from typing import Any

from jaxvid.tasks import ablations
from jaxvid.training import shapes

STAGE_1 = 'block_stage1'
FULL = 'block_full'
OPEN = 'block_open'  # What captions leave open, the bank knows.
_LONG = 'configs/shapes/blockvid.py:{size},stage2'
_NO_VELOCITY = 'block.velocity.gamma=0.0'
_APART = f'{_LONG},velocity'  # Without the Self-Forcing loss.
# Name -> config and overrides.
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
  STAGE_1: ('configs/shapes/blockvid.py:{size},stage1', ()),
  FULL: (_LONG, ()),
  OPEN: (f'{_LONG},open', ()),
  'block_naive': (_LONG, ('block.rising.curve=naive',)),
  'block_linear': (_LONG, ('block.rising.curve=linear',)),
  'block_sigmoid': (_LONG, ('block.rising.curve=sigmoid',)),
  'block_velocity': (_APART, ()),
  'block_self': (_LONG, (_NO_VELOCITY,)),
  'block_plain': (_APART, (_NO_VELOCITY,)),
  'block_stage2': (_LONG, ('block.weights={causal}',)),
}
SEEDS = {FULL: (0, 1, 2), OPEN: (0, 1, 2)}

# How chunks are sampled: Euler ticks with guidance, two recent chunks.
STREAM: dict[str, Any] = {
  'schedule': 'euler',
  'steps': 8,
  'commit': 'clean',
  'guidance': 3.0,
  'sink': 0,
  'window': 9,
  'positions': 'relative',
}
SEMANTIC = {**STREAM, 'bank.retrieval': 'semantic'}
# The same number of chunks: four recent ones, all of their tokens.
ROLLING = {**STREAM, 'bank.retrieval': 'recent', 'bank.tau': 1.0}
DYNAMIC = {**STREAM, 'bank.retrieval': 'recent'}

# VDE of the paper's tables, in both forms.
DRIFTS = ('vde_subject', 'vde_background', 'vde_motion')
DRIFTS += ('vde_paper_subject', 'vde_paper_background')
COLUMNS = ('right', 'colour', 'shape', 'motion', 'remembered', *DRIFTS)


def base(
  name: str, title: str, size: str = '', seconds: float = 11.0
) -> dict[str, Any]:
  """What every ablation has in common; arguments as `ablations.base`'s.

  Args:
    name: of the ablation.
    title: of its report.
    size: of the models; empty: nano.
    seconds: of the videos, in three shots that return to the first.
  """
  common = ablations.base(name, title, size)
  evaluate = [text for text in common['evaluate'] if 'guidance' not in text]
  return {
    **common,
    'train': [],
    'evaluation': 'configs/evaluate/returning.py',
    'evaluate': [*evaluate, f'stream.seconds={seconds}'],
    'clips': 128,
    'columns': list(COLUMNS),
  }


def trainings(
  size: str, *names: str, seeds: Sequence[int] = ()
) -> list[dict[str, Any]]:
  """Trainings by name, for a config; stage 1 comes first.

  Args:
    size: of the models; empty: nano.
    *names: keys of `TRAININGS`.
    seeds: only these, of those that a training has.
  """
  size = size or 'nano'
  shapes.sizes(size)
  start = f'runs/ablations/{size}/{STAGE_1}_s0/weights'
  first = (STAGE_1,)
  if size == 'small':
    start, first = shapes.causal(size), ()
  rows = []
  for name in dict.fromkeys((*first, *names)):
    config, overrides = TRAININGS[name]
    causal = shapes.causal(size)
    changes = [text.format(causal=causal) for text in overrides]
    goes_on = not any(text.startswith('block.weights=') for text in changes)
    if name != STAGE_1 and goes_on:
      changes.append(f'block.weights={start}')
    own = SEEDS.get(name, (0,))
    rows.append(
      {
        'name': name,
        'config': config.format(size=size),
        'overrides': changes,
        'seeds': [seed for seed in own if not seeds or seed in seeds],
        'optional': False,
      }
    )
  return rows


def drift_claims(
  table: str, better: str, worse: str, metrics: Sequence[str] = DRIFTS
) -> list[dict[str, Any]]:
  """Claims that one arm drifts less than another, metric by metric."""
  return [
    ablations.claim(
      f'{table}: {better} over {worse}, {metric}', worse, better, metric
    )
    for metric in metrics
  ]
