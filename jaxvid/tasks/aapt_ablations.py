"""Trainings of AAPT's ablations and how they are sampled; shared by configs.

Each variant differs from `student` in one thing. What changes the generator's
input or its chunks begins with an adaptation and a consistency distillation of
its own; all others share theirs.
"""

from typing import Any

from jaxvid.tasks import ablations, presets
from jaxvid.training import aapt_recipes, shapes

# *ours*: optimiser steps of each stage, and updates of the generator.
STEPS = {'adapt': 800, 'consistency': 300, 'adversarial': 200, 'long': 60}
CONFIGS = {
  'adapt': 'configs/shapes/aapt_adapt.py:{size},low',
  'consistency': 'configs/shapes/aapt_consistency.py:{size}',
  'matching': 'configs/shapes/aapt_matching.py:{size}',
  'adversarial': 'configs/shapes/aapt_adversarial.py:{size}',
  'long1': 'configs/shapes/aapt_long.py:{size},1',
  'long5': 'configs/shapes/aapt_long.py:{size},5',
}
# Of the adaptation and the distillation; of the generator and its judge.
LOSSES = ['loss', 'gan_generator', 'gan_discriminator', 'gan_accuracy']
MASKED = ('inputs.recycled=first',)
CHUNK = ('chunk=3', 'window=12')
STREAM: dict[str, Any] = {
  name: presets.AAPT[name]
  for name in (
    'recycled',
    'schedule',
    'commit',
    'chunk',
    'sink',
    'window',
    'positions',
  )
}
# Name -> stage, name of the training it starts from, settings of its section.
TRAININGS: dict[str, tuple[str, str, tuple[str, ...]]] = {
  'aapt_adapt': ('adapt', '', ()),
  'aapt_consistency': ('consistency', 'aapt_adapt', ()),
  'aapt_student': ('adversarial', 'aapt_consistency', ()),
  'aapt_teacher': ('adversarial', 'aapt_consistency', ('forcing=teacher',)),
  'aapt_clip': ('adversarial', 'aapt_consistency', ('judge.scores=clip',)),
  'aapt_all': ('adversarial', 'aapt_consistency', ('gradient=all',)),
  'aapt_matching': ('matching', 'aapt_consistency', ()),
  'aapt_warm': ('adversarial', 'aapt_matching', ()),
  'aapt_masked_adapt': ('adapt', '', MASKED),
  'aapt_masked_consistency': ('consistency', 'aapt_masked_adapt', MASKED),
  'aapt_masked': ('adversarial', 'aapt_masked_consistency', MASKED),
  'aapt_chunk_adapt': ('adapt', '', CHUNK),
  'aapt_chunk_consistency': ('consistency', 'aapt_chunk_adapt', CHUNK),
  'aapt_chunk': ('adversarial', 'aapt_chunk_consistency', CHUNK),
  'aapt_long1': ('long1', 'aapt_student', ()),
  'aapt_long5': ('long5', 'aapt_long1', ()),
}
# As many updates as the long stages together, none of them on long videos.
TRAININGS['aapt_more'] = ('adversarial', 'aapt_student', ())
_MORE = {'aapt_more': 2 * STEPS['long']}


def base(name: str, title: str, size: str = '') -> dict[str, Any]:
  """As `ablations.base`, with AAPT's own stream and steps."""
  settings = ablations.base(name, title, size)
  return {**settings, 'train': [], 'losses': LOSSES}


def trainings(size: str, *names: str) -> list[dict[str, Any]]:
  """Trainings by name and all they start from, in order, for a config."""
  wanted: list[str] = []

  def add(name: str) -> None:
    if name and name not in wanted:
      stage, before, settings = TRAININGS[name]
      add(before)
      if stage in aapt_recipes.EXTENSIONS:
        add(_adapted(settings))
      wanted.append(name)

  for name in names:
    add(name)
  return [_training(size or 'nano', name) for name in wanted]


def _adapted(settings: tuple[str, ...]) -> str:
  """The adaptation whose weights the discriminator starts from."""
  if settings == MASKED:
    return 'aapt_masked_adapt'
  return 'aapt_chunk_adapt' if settings == CHUNK else 'aapt_adapt'


def _training(size: str, name: str) -> dict[str, Any]:
  stage, before, settings = TRAININGS[name]
  folder = f'runs/ablations/{size}'
  section = aapt_recipes.SECTIONS[stage]
  own = list(settings)
  if before:
    own.append(f'weights={folder}/{before}_s0/weights')
  if stage in aapt_recipes.EXTENSIONS:
    goes_on = before and TRAININGS[before][0] in aapt_recipes.EXTENSIONS
    judge = f'{before}_s0' if goes_on else f'{_adapted(settings)}_s0/weights'
    own.append(f'judge.weights={folder}/{judge}')
  if settings == CHUNK and stage in aapt_recipes.EXTENSIONS:
    own.append('overlap=4')
  steps = STEPS.get(stage, STEPS['long'])
  if stage == 'matching':
    steps = STEPS['adversarial']
  overrides = [f'{section}.{setting}' for setting in own]
  overrides.append(f'loop.steps={_MORE.get(name, steps)}')
  shapes.sizes(size)
  return {
    'name': name,
    'config': CONFIGS[stage].format(size=size),
    'overrides': overrides,
    'seeds': [0],
    'optional': settings == ('forcing=teacher',),
  }


def arm(
  name: str, training: str, published: str = '', **changes: Any
) -> dict[str, Any]:
  """One row of a table; `changes` are settings of the stream."""
  return ablations.arm(name, training, {**STREAM, **changes}, published)
