"""Times what a change of the prompt adds to a clip of 10 s.

  python -m jaxvid.main --config=configs/benchmark/switch.py
  python -m jaxvid.main --config=configs/benchmark/switch.py:wan_1_3b
  python -m jaxvid.main --config=configs/benchmark/switch.py:small \
    --config.output=benchmarks/results/switch_cpu.json

Random weights of one size, S3W9, one change after 5 s: memory made anew, made
anew as LongLive's release does, kept, emptied; with 4 ticks and a clean one
per chunk, with 4322222, and with 4322222 that begins again. Ticks alone.
Wanted: the first adds 10 % at most to 4 + clean. The paper says about 6 %;
counted in tokens it is 4 chunks of 70. Takes a minute on two CPU cores;
figures: docs/longlive.md. Not measured on a GPU.
"""

from ml_collections import config_dict

STREAM = {'sink': 3, 'window': 9, 'positions': 'relative', 'decoder': 'vae'}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  diagonal = {'schedule': '4322222', 'commit': 'last'}
  schedules = {
    'four_clean': {'schedule': 'self_forcing', 'commit': 'clean'},
    '4322222': diagonal,
    '4322222_again': {**diagonal, 'switch': {'again': True}},
  }
  return config_dict.ConfigDict(
    {
      'task': 'switch_cost',
      'systems': [
        {'name': name, 'stream': {**STREAM, **schedule}}
        for name, schedule in schedules.items()
      ],
      'random': arg or 'small',
      'seconds': 10.0,
      'repeats': 7,
      'target': 0.1,
      'output': '',
    }
  )
