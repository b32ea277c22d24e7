"""Trains the teacher's weights as a chunk-causal model, in two stages.

  python -m jaxvid.main --config=configs/shapes/causal.py:small,first
  python -m jaxvid.main --config=configs/shapes/causal.py:small

`first` starts from the averaged weights of `teacher.py:small,refined` and
learns from 6 latents of the many short clips: what a stream begins with. The
second goes on with 12 latents; half of the clips skip some time after their
first chunk, as a memory with a sink and a rolling window does in a long stream.
Its averaged weights are written to `jaxvid/weights/shapes/model`. Chunks of 3
latents are denoised against the clean chunks before them (teacher forcing);
`--config.diffusion.flow.forcing=diffusion` shows them noisy ones. What the
shipped weights took: docs/model_card.md.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

# Latent frames, batch, steps, peak learning rate, chance of a gap, clips.
STAGES = {
  'first': (6, 32, 1500, 5e-3, 0.0, 'short'),
  'long': (12, 16, 1500, 4e-3, 0.5, 'long'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, stage = (arg or 'small').partition(',')
  stage = stage or 'long'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  frames, batch, steps, rate, gap, cache = STAGES[stage]
  first = stage == 'first'
  dit, text = shapes.sizes(size)
  runs = f'runs/shapes/{size}'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/causal_first' if first else f'{runs}/causal_teacher',
      'export': '' if first else shapes.exported('shapes', size),
      'export_dtype': 'float16',
      'loop': {
        'sample_every': 500,
        'steps': steps,
        'init_from': f'{runs}/{"teacher_refined" if first else "causal_first"}',
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
          'forcing': 'teacher',
          'chunk': 3,
          'times': 'uniform',
          'shift': 3.0,
          'staggered': 0.5,  # see `teacher.py`
        },
        'data': {
          'latents': f'data/latents/{cache}_{shapes.PIXELS[size]}',
          'frames': frames,
          'batch': batch,
          'gap': gap,
        },
      },
    }
  )
