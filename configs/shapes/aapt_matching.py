"""AAPT, an optional warm-up: distribution matching before the adversary.

  python -m jaxvid.main --config=configs/shapes/aapt_matching.py:small
  python -m jaxvid.main --config=configs/shapes/aapt_adversarial.py:small \
    --config.aapt_adversarial.weights=runs/shapes/small/aapt_matching_weights

Not in AAPT: a remedy against videos that hardly move (AAD-1). The generator
of `aapt_consistency.py:small` rolls out from real first frames; the
bidirectional model of `teacher.py:small,long` scores it; at size `nano`, which
has none, the one that ships. The student's turn is each 5th step. Its runtime
has not been measured.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  config = aapt_recipes.shapes_stage(arg or 'small', 'matching')
  return config_dict.ConfigDict(config)
