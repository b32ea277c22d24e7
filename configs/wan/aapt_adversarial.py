"""AAPT, stage 3: adversarial training on the generator's own rollouts.

  python -m jaxvid.main --config=configs/wan/aapt_adversarial.py

500 updates at 640 x 352 alone, 5 to 10 s, batch 256, RMSProp 0.9 at 3e-6,
relativistic pairs, R1 and R2 (0.1, 1000): *paper*. The discriminator starts
from `aapt_adapt.py`.
Needs converted weights below `models/` (`configs/convert.py`) and cached
latents below `data/latents/`. Not run on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(aapt_recipes.wan_stage('adversarial'))
