"""Initialises a few-step causal student by consistency distillation.

  python -m jaxvid.main --config=configs/shapes/consistency.py:small

The other way to begin: needs the latents of `latents.py:long` and `:turns`, the
causal model of `causal.py:small`, which is both where the student starts and
the teacher of the steps between neighbouring noise levels, and no ODE pairs.
Teacher-forced: every chunk sees the clean chunks before it. The student is
written to `runs/shapes/<size>/consistency`; distil from there with
`--config.distill.weights.student=...`. Its runtime has not been measured.

*Released config* is that of Causal Forcing.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.objectives import consistency
from jaxvid.training import shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size = arg or 'small'
  dit, text = shapes.sizes(size)
  runs = f'runs/shapes/{size}'
  side = shapes.PIXELS[size]
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/consistency_run',
      'export': f'{runs}/consistency',
      'export_dtype': 'float32',  # what goes on learning keeps its precision
      'loop': {
        'steps': 1000,  # *ours*
        'ema_decay': 0.99,  # *released config*; it is the target, too
        'optimizer': {
          'learning_rate': 5e-4,  # *ours*
          'warmup_steps': 30,  # *ours*
        },
      },
      'consistency': {
        'dit': dataclasses.asdict(dit),
        'text': dataclasses.asdict(text),
        'tokenizer': shapes.TOKENIZER,
        'weights': f'{runs}/causal_teacher',
        'guidance': 3.0,  # *released config*
        'target': 'average',  # *released config*
        # *released config*: 48 steps, shift 5; a level per chunk: *ours*
        'consistency': dataclasses.asdict(consistency.CAUSAL_FORCING),
        'chunk': 3,  # *paper*
        'data': {
          'latents': f'data/latents/long_{side},data/latents/turns_{side}',
          'frames': 12,  # *ours*, as the causal model
          'batch': 16,  # *ours*
          'gap': 0.5,  # *ours*, as the causal model
          'text_drop': 0.0,
        },
      },
    }
  )
