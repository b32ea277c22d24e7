"""Trains text encoder and transformer as a bidirectional teacher.

  python -m jaxvid.main --config=configs/shapes/latents.py:short
  python -m jaxvid.main --config=configs/shapes/latents.py:long
  python -m jaxvid.main --config=configs/shapes/teacher.py:small
  python -m jaxvid.main --config=configs/shapes/teacher.py:small,long

Flow matching on one noise level per clip, prompts dropped for one clip in
ten. The first run learns from 7 latents (1.6 s), the second goes on from its
averaged weights with 21 (5 s). Sizes: nano, small (64x64), base (128x128;
cache `latents.py:short,128` first).

The first run of `small` took 69 minutes on two busy CPU cores and ended at a
loss of 0.19. Of 128 clips of 25 frames 98 % then had the right colour and 82 %
the right shape; it moves things along the right axis, but left or right, up or
down by chance (docs/model_card.md). The second has not been run.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

# Latent frames, batch, steps, peak learning rate.
STAGES = {'short': (7, 32, 8000, 1e-2), 'long': (21, 32, 500, 5e-4)}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, stage = (arg or 'small').partition(',')
  stage = stage or 'short'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  dit, text = shapes.sizes(size)
  frames, batch, steps, rate = STAGES[stage]
  runs = f'runs/shapes/{size}'
  last = stage == 'long'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/teacher_{stage}',
      'export': shapes.exported('shapes_teacher', size) if last else '',
      'export_dtype': 'float16',
      'loop': {
        'sample_every': 1000,
        'steps': steps,
        'init_from': '' if stage == 'short' else f'{runs}/teacher_short',
        'optimizer': {
          'kind': 'muon',
          'learning_rate': rate,
          'warmup_steps': 100 if stage == 'short' else 25,
          # One text encoder for the teacher and all its students.
          'frozen': '' if stage == 'short' else '^text/',
        },
      },
      'diffusion': {
        'dit': dataclasses.asdict(dit),
        'text': dataclasses.asdict(text),
        'tokenizer': shapes.TOKENIZER,
        'sample': shapes.sample_videos(size),
        # Where things are and how they move is settled in the noise.
        'flow': {'forcing': 'none', 'shift': 2.2},
        'data': {
          'latents': f'data/latents/{stage}_{shapes.PIXELS[size]}',
          'frames': frames,
          'batch': batch,
        },
      },
    }
  )
