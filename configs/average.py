"""Averages weights of one model, for instance of one run at several times.

  python -m jaxvid.main --config=configs/average.py \
    --config.weights="('runs/a','runs/b')" --config.output=runs/mean

The mean goes wherever one of them does. Two or more folders; takes seconds.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {'task': 'average', 'weights': (), 'output': ''}
  )
