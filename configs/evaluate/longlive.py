"""Measures the long and interactive student of the shapes world.

  python -m jaxvid.main --config=configs/evaluate/longlive.py:long
  python -m jaxvid.main --config=configs/evaluate/longlive.py:switch

`long`: streams of 240 s, read in windows of 10 s; wanted: colour, shape and
motion in the last window within 5 points of the first. `switch`: 512 videos of
10 s in which one thing changes after 5 s; wanted: `met` (the change shows, from
2 s after it) at least 90 %, `stayed` at least 95 %: of what was right before
and is not to change, what is right after. `kept` counts what was never right,
too.
The student before long tuning:

  python -m jaxvid.main --config=configs/evaluate/longlive.py:switch \
    --config.stream.weights=shapes_diagdistill

Figures: docs/longlive.md. `configs/shapes/longlive_chain.py` measures its own
student by this, with 4 ticks and a clean pass.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  what = arg or 'switch'
  if what not in ('long', 'switch'):
    raise UserError(f"no measurement '{what}'; there are long and switch")
  stream = {
    **presets.LONGLIVE,
    'seconds': 240.0 if what == 'long' else 10.0,
  }
  kinds = {
    'long': {'clips': 256, 'window': 10, 'batch': 8, 'probe_every': 0},
    'switch': {'clips': 512, 'script': 'follow_up', 'shots': 2},
  }
  return config_dict.ConfigDict(
    {
      'task': 'evaluate',
      'stream': stream,
      'objects': 1,
      'seed': 0,
      'output': '',
      **kinds[what],
    }
  )
