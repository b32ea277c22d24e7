"""AAPT, stage 2: a one-step generator, by consistency distillation.

  python -m jaxvid.main --config=configs/shapes/aapt_consistency.py:small

Distils the model of `aapt_adapt.py:small` on 32 fixed levels, shift 24, without
guidance and without an average of the target (*paper*), teacher-forced. What
it makes is blurry. Writes `runs/shapes/<size>/aapt_consistency_weights`.

`small` takes 6 minutes on one CPU core (1.6 steps per second), `nano` does 3.8.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  config = aapt_recipes.shapes_stage(arg or 'small', 'consistency')
  return config_dict.ConfigDict(config)
