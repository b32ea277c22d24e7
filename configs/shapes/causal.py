"""Trains the teacher's weights as a chunk-causal model.

  python -m jaxvid.main --config=configs/shapes/causal.py:small
  python -m jaxvid.main --config=configs/shapes/causal.py:small,diffusion

Starts from the averaged weights of `teacher.py:small,refined`. Chunks of 3
latents are denoised against the clean chunks before them (teacher forcing,
the default) or against noisy ones (diffusion forcing). Half of the clips
skip some time after their first chunk, as a memory with a sink and a rolling
window does in a long stream. The averaged weights of `small` are written to
`jaxvid/weights/shapes/model`. `small` took 30 minutes on two busy CPU cores
and ended at a loss of 0.14.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

FORCING = ('teacher', 'diffusion')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, forcing = (arg or 'small').partition(',')
  forcing = forcing or 'teacher'
  if forcing not in FORCING:
    raise UserError(f"no forcing '{forcing}'; there are {', '.join(FORCING)}")
  dit, text = shapes.sizes(size)
  runs = f'runs/shapes/{size}'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/causal_{forcing}',
      'export': shapes.exported('shapes', size),
      'export_dtype': 'float16',
      'loop': {
        'sample_every': 500,
        'steps': 1800,
        'init_from': f'{runs}/teacher_refined',
        'optimizer': {
          'kind': 'muon',
          'learning_rate': 4e-3,
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
          'forcing': forcing,
          'chunk': 3,
          'times': 'uniform',
          'shift': 3.0,
          'staggered': 0.5,  # see `teacher.py`
        },
        'data': {
          'latents': f'data/latents/long_{shapes.PIXELS[size]}',
          'frames': 12,
          'batch': 16,
          'gap': 0.5,
        },
      },
    }
  )
