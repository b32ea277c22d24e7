"""AAPT, stage 4: videos longer than those of the data.

  python -m jaxvid.main --config=configs/shapes/aapt_long.py:small
  python -m jaxvid.main --config=configs/shapes/aapt_long.py:small,5

First videos of one more segment, then of five (*paper*): 37 latents (9 s)
and 101 (25 s). A segment begins with the last second of the one before, is
judged by itself and is cut off from the others' gradient. The second run's
averaged weights are written to `jaxvid/weights/shapes_aapt/model` for `small`;
`configs/shapes/ship.py:small,aapt` makes a bundle of them. On one CPU core
`small` takes 13 minutes (0.31 updates per second), then 12 (0.13).
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, extensions = (arg or 'small').partition(',')
  stage = aapt_recipes.extension(extensions)
  return config_dict.ConfigDict(aapt_recipes.shapes_stage(size, stage))
