"""Trains a chunk-causal model in stages, from a teacher or from nothing.

  python -m jaxvid.main --config=configs/shapes/causal.py:small,first
  python -m jaxvid.main --config=configs/shapes/causal.py:small,long
  python -m jaxvid.main --config=configs/shapes/causal.py:small
  python -m jaxvid.main --config=configs/shapes/causal.py:small,switches
  python -m jaxvid.main --config=configs/shapes/causal.py:small,pulses
  python -m jaxvid.main --config=configs/shapes/causal.py:nano,first

`first` starts from the averaged weights of `teacher.py:small,refined` and
learns from 6 latents of the many short clips: what a stream begins with. The
second goes on with 12 latents; half of the clips skip some time after their
first chunk, as a memory with a sink and a rolling window does in a long stream.
The third shows circling and pulsing more often (`latents.py:turns`), which are
learnt last, and clips in which one thing changes after half of their time
(`latents.py:scripts`): these are told the new caption throughout, as a memory
is made anew when the prompt is switched, and only what follows the change
counts. Its averaged weights are written to `jaxvid/weights/shapes/model`.
Chunks of 3 latents are denoised against the clean chunks before them (teacher
forcing); `--config.diffusion.flow.forcing=diffusion` shows them noisy ones.
What the shipped weights took: docs/model_card.md.

`switches` goes on from these with the changes that are learnt last
(`latents.py:switches`), `pulses` from there with those to pulsing
(`latents.py:pulses`); they teach LongLive's student (`longlive_long.py`).

`nano`, the size of the ablations, has no teacher to start from: its `first`
stage takes the text encoder of the shipped model, frozen, and the transformer
from nothing. Every latent has a noise level of its own and sees those before
it (diffusion forcing).
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

# Latent frames, batch, steps, peak learning rate, chance of a gap, caches, run
# and the one it starts from; '': the weights that were written.
STAGES = {
  'first': (
    (6, 32, 1500, 5e-3, 0.0, ('short',)), 'causal_first', 'teacher_refined',
  ),
  'long': (
    (12, 16, 1500, 4e-3, 0.5, ('long',)), 'causal_long', 'causal_first',
  ),
  'turns': (
    (12, 16, 2400, 3e-3, 0.5, ('long', 'turns', 'scripts')), 'causal_teacher',
    'causal_long',
  ),
  'switches': (
    (12, 16, 1200, 2e-3, 0.5, ('long', 'turns', 'scripts', 'switches')),
    'causal_switches', '',
  ),
  'pulses': (
    (12, 16, 600, 1e-3, 0.5, ('turns', 'scripts', 'switches', 'pulses')),
    'causal_pulses', 'causal_switches',
  ),
}  # fmt: skip
FROM_NOTHING = (6, 32, 6000, 1e-2, 0.5, ('long', 'turns'))
# What is staggered: see `teacher.py`.
TEACHER_FORCING = {'forcing': 'teacher', 'chunk': 3, 'staggered': 0.5}
DIFFUSION_FORCING = {'forcing': 'diffusion', 'chunk': 1}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, stage = (arg or 'small').partition(',')
  stage = stage or 'turns'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  numbers, run, before = STAGES[stage]
  fresh = size in shapes.CAUSAL_ONLY and stage == 'first'
  frames, batch, steps, rate, gap, caches = FROM_NOTHING if fresh else numbers
  dit, text = shapes.sizes(size)
  side = shapes.PIXELS[size]
  runs = f'runs/shapes/{size}'
  last = shapes.exported('shapes', size)
  start = {'init_from': f'{runs}/{before}' if before else last}
  if fresh:
    shipped = shapes.exported('shapes', 'small')
    start = {'init_from': shipped, 'init_only': '^text/'}
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/{run}',
      'export': last if stage == 'turns' else '',
      'export_dtype': 'float16',
      'loop': {
        'sample_every': 500,
        'steps': steps,
        **start,
        'optimizer': {
          'kind': 'muon',
          'learning_rate': rate,
          'warmup_steps': 50,
          # One text encoder for the teacher and all its students.
          'frozen': '^text/',
        },
      },
      'diffusion': {
        'dit': dataclasses.asdict(dit),
        'text': dataclasses.asdict(text),
        'tokenizer': shapes.TOKENIZER,
        'sample': shapes.sample_videos(size),
        'flow': {
          **(DIFFUSION_FORCING if fresh else TEACHER_FORCING),
          'times': 'uniform',
          'shift': 3.0,
        },
        'data': {
          'latents': ','.join(f'data/latents/{c}_{side}' for c in caches),
          'frames': frames,
          'batch': batch,
          'gap': gap,
        },
      },
    }
  )
