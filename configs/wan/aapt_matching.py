"""AAPT, an optional warm-up: distribution matching.

  python -m jaxvid.main --config=configs/wan/aapt_matching.py

Not in AAPT: a remedy against videos that hardly move (AAD-1), between
`aapt_consistency.py` and `aapt_adversarial.py`. All values are *ours*.
Needs converted weights below `models/` (`configs/convert.py`) and cached
latents below `data/latents/`. Not run on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(aapt_recipes.wan_stage('matching'))
