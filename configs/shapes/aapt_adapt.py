"""AAPT, stage 1: a causal model that recycles frames, by diffusion.

  python -m jaxvid.main --config=configs/shapes/latents.py:long
  python -m jaxvid.main --config=configs/shapes/latents.py:turns
  python -m jaxvid.main --config=configs/shapes/latents.py:long,128 \
    --config.clips=512
  python -m jaxvid.main --config=configs/shapes/aapt_adapt.py:small

Starts from the causal model that ships (other sizes: that of `causal.py`),
whose input gets channels for the frame before; teacher-forced, one noise level
per clip, uniform times with shift 24 (*paper*). Short clips first, then some of
twice the side, then long ones; `aapt_adapt.py:small,low` leaves the larger
ones, and their latents, out. Writes `runs/shapes/<size>/aapt_adapt_weights`.
`small,low` takes 12 minutes on one CPU core (1.4 steps per second), `nano,low`
4.3 steps per second. Expected: `loss` 0.11.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in ('', 'low'):
    raise UserError(f"no variant '{variant}'; there is 'low'")
  config = aapt_recipes.shapes_stage(size, 'adapt')
  if variant:
    for stage in config['aapt_adapt']['stages']:
      del stage['sources'][1:]
  return config_dict.ConfigDict(config)
