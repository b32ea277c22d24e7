"""The students of the ablations, and how they are sampled; shared by configs.

One student trained with random digits serves every allocation of ticks, every
window and every context level. What cannot be swept is trained apart, from the
same start, with as many steps. Several ablations share a training by its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxvid.training import shapes

# *ours*: optimiser steps of every training; the student's turn is each 3rd.
STEPS = 600
# Every teacher is the causal model, every memory the same.
_DIGITS = 'configs/shapes/diagdistill.py:{size},chunks'
_FORCED = 'configs/shapes/self_forcing.py:{size},chunks'
_LATENTS = 'distill.data.latents={latents}'
FEATURES = ('raw', 'difference', 'correlation', 'low', 'high', 'mlp')
GAMMAS = (0.25, 0.5, 2.0, 4.0, 8.0, 16.0)
# Name -> config and overrides.
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
  'digits': (_DIGITS, ()),
  'clean': (_DIGITS, ('distill.schedule.commit=clean',)),
  'no_flow': (_DIGITS, ('distill.flow.gamma=0.0',)),
  'no_regression': (
    _DIGITS,
    ('distill.flow.regression=0.0', 'distill.flow.flow_regression=0.0'),
  ),
  'frame': ('configs/shapes/diagdistill.py:{size},frame_chunks', ()),
  'self_forcing': (_FORCED, ()),
  'teacher_forcing': (_FORCED, ('distill.history=teacher', _LATENTS)),
  'diffusion_forcing': (_FORCED, ('distill.history=diffusion', _LATENTS)),
  'diagonal_forcing': (_FORCED, ('distill.rollout.truth_after=2', _LATENTS)),
  'causvid': ('configs/shapes/causvid.py:{size},chunks', ()),
}
TRAININGS |= {
  f'feature_{kind}': (_DIGITS, (f'distill.flow.motion.kind={kind}',))
  for kind in FEATURES
}
TRAININGS |= {
  f'gamma_{gamma:g}'.replace('.', '_'): (
    _DIGITS,
    (f'distill.flow.gamma={gamma}',),
  )
  for gamma in GAMMAS
}
# Trained twice: what most of the paper's claims rest on.
SEEDS = {name: (0, 1) for name in ('digits', 'clean', 'no_flow')}
OPTIONAL = ('no_regression',)  # The paper expects it to collapse.

# How students are sampled.
DIAGONAL: dict[str, Any] = {
  'schedule': '4322222',
  'commit': 'last',
  'sink': 3,
  'window': 9,
  'positions': 'relative',
}
CLEAN = {**DIAGONAL, 'commit': 'clean'}
FORCED: dict[str, Any] = {**CLEAN, 'schedule': 'self_forcing'}
CAUSVID = {**FORCED, 'schedule': 'causvid'}


def base(name: str, title: str, size: str = '') -> dict[str, Any]:
  """What every ablation has in common.

  Args:
    name: of the ablation.
    title: of its report.
    size: of the models; empty: nano.
  """
  size = size or 'nano'
  shapes.sizes(size)
  side = shapes.PIXELS[size]
  return {
    'task': 'ablate',
    'name': name,
    'title': title,
    'folder': f'runs/ablations/{size}',
    'train': [f'loop.steps={STEPS}'],
    'evaluate': [
      f'parts.tokenizer={shapes.TOKENIZER}',
      f'parts.decoder={shapes.VAE}',
      f'parts.size=({side},{side})',
      'stream.decoder=vae',
      'stream.guidance=1.0',
    ],
  }


def trainings(
  size: str, *names: str, seeds: Sequence[int] = ()
) -> list[dict[str, Any]]:
  """Trainings by name, for a config.

  Args:
    size: of the models; empty: nano.
    *names: keys of `TRAININGS`.
    seeds: only these, of those that a training has.
  """
  size = size or 'nano'
  latents = f'data/latents/long_{shapes.PIXELS[size]}'
  rows = []
  for name in names:
    config, overrides = TRAININGS[name]
    own = SEEDS.get(name, (0,))
    rows.append(
      {
        'name': name,
        'config': config.format(size=size),
        'overrides': [o.format(latents=latents) for o in overrides],
        'seeds': [seed for seed in own if not seeds or seed in seeds],
        'optional': name in OPTIONAL,
      }
    )
  return rows


def arm(
  name: str,
  training: str,
  stream: Mapping[str, Any],
  published: str = '',
  x: float | None = None,
  line: str = '',
) -> dict[str, Any]:
  """One row of a table, for a config; arguments as `ablate.Arm`'s.

  Args:
    name: of the row.
    training: whose student.
    stream: how it is sampled.
    published: the paper's own figures.
    x: place on the axis of a sweep.
    line: which sweep.
  """
  return {
    'name': name,
    'training': training,
    'evaluate': [f'stream.{key}={value}' for key, value in stream.items()],
    'published': published,
    'x': x,
    'line': line,
  }


def claim(
  text: str,
  plus: str,
  minus: str = '',
  metric: str = 'right',
  margin: float = 0.0,
) -> dict[str, Any]:
  """A published ordering, for a config; names of arms separated by commas."""
  sides = [
    [n.strip() for n in s.split(',') if n.strip()] for s in (plus, minus)
  ]
  return {
    'text': text,
    'plus': sides[0],
    'minus': sides[1],
    'metric': metric,
    'margin': margin,
  }
