"""AAPT, stage 1: a causal model that recycles frames, by diffusion.

  python -m jaxvid.main --config=configs/wan/aapt_adapt.py

Wan2.1 1.3B becomes causal and gets channels for the frame before. 20,000
steps of 5 s at 736 x 416, 6,000 with 1280 x 720 among them, 4,000 of up to
15 s; batches of 256, 128 and 32; AdamW, 1e-5, decay 0.01; uniform times, shift
24: *paper*.
Needs converted weights below `models/` (`configs/convert.py`) and cached
latents below `data/latents/`. Not run on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(aapt_recipes.wan_stage('adapt'))
