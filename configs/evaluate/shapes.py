"""Probes what a shapes-world model generates, against its captions.

  python -m jaxvid.main --config=configs/evaluate/shapes.py
  python -m jaxvid.main --config=configs/evaluate/shapes.py:longlive
  python -m jaxvid.main --config=configs/evaluate/shapes.py:causal
  python -m jaxvid.main --config=configs/evaluate/shapes.py:teacher
  python -m jaxvid.main --config=configs/evaluate/shapes.py --config.objects=2
  python -m jaxvid.main --config=configs/evaluate/shapes.py \
    --config.stream.seconds=60 --config.clips=64   # drift over a minute

The first makes 1,024 clips of 5 s from captions whose combinations of shape,
colour and motion training never showed, and reads them back with the probe.
Without a name the student that the demo streams; `:longlive` is the one tuned
on long videos, `:causal` and `:teacher` are the models before distillation.
Figures: docs/model_card.md. Measures come chunk by chunk, too; runs and weights
that are no bundle yet need `parts` (docs/ablations.md).
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  model = arg or 'diagdistill'
  if model not in presets.SHAPES:
    names = ', '.join(presets.SHAPES)
    raise UserError(f"no model '{model}'; there are {names}")
  return config_dict.ConfigDict(
    {
      'task': 'evaluate',
      'stream': {**presets.SHAPES[model], 'seconds': 5.0, 'seed': 0},
      'clips': 1024,
      'objects': 1,
      'batch': 32,
      'seed': 0,
      'output': '',
    }
  )
