"""AAPT, stage 4: videos longer than those of the data.

  python -m jaxvid.main --config=configs/wan/aapt_long.py
  python -m jaxvid.main --config=configs/wan/aapt_long.py:5

One more segment (19 s in all), then five (55 s), each judged by itself, with a
second of overlap; batch 64, 1e-5, 500 updates: *paper*; the updates of the
second run are *ours*. Needs the weights of `configs/wan/aapt_adversarial.py`.
Not run on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  stage = aapt_recipes.extension(arg)
  return config_dict.ConfigDict(aapt_recipes.wan_stage(stage))
