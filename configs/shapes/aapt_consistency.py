"""AAPT, stage 2: a one-step generator, by consistency distillation.

  python -m jaxvid.main --config=configs/shapes/aapt_consistency.py:small

Distils the model of `aapt_adapt.py:small` on 32 fixed levels, shift 24, without
guidance and without an average of the target (*paper*), teacher-forced. What
it makes is blurry. Writes `runs/shapes/<size>/aapt_consistency_weights`.

The weights that ship as `shapes_aapt` end here, before any adversary. They
began with the causal model that ships; 29 and 16 minutes on two CPU cores
beside another training:

  python -m jaxvid.main --config=configs/shapes/aapt_adapt.py:small,low
  python -m jaxvid.main --config=configs/shapes/aapt_consistency.py:small \
    --config.export=jaxvid/weights/shapes_aapt/model \
    --config.export_dtype=float16
  python -m jaxvid.main --config=configs/shapes/ship.py:small,aapt
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  config = aapt_recipes.shapes_stage(arg or 'small', 'consistency')
  return config_dict.ConfigDict(config)
