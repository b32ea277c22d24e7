"""AAPT, stage 2: a one-step generator, by consistency distillation.

  python -m jaxvid.main --config=configs/wan/aapt_consistency.py

5,000 steps on 32 fixed levels with shift 24, without guidance and without an
average of the target, on the clips of the last stage before: *paper*.
Needs converted weights below `models/` (`configs/convert.py`) and cached
latents below `data/latents/`. Not run on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(aapt_recipes.wan_stage('consistency'))
