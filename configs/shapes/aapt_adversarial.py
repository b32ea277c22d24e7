"""AAPT, stage 3: adversarial training on the generator's own rollouts.

  python -m jaxvid.main --config=configs/shapes/aapt_adversarial.py:small
  python -m jaxvid.main --config=configs/shapes/aapt_adversarial.py:small \
    --config.aapt_adversarial.forcing=teacher
  python -m jaxvid.main --config=configs/shapes/aapt_adversarial.py:small \
    --config.aapt_adversarial.judge.scores=clip

The generator of `aapt_consistency.py:small` streams from a real first frame
(student forcing, *paper*); a discriminator of the same architecture, which
starts from `aapt_adapt.py:small`, judges every duration. Relativistic pairs,
approximate R1 and R2 (0.1, 1000), RMSProp with 0.9: *paper*. The low size
only, as in the paper. The second command is appendix F (teacher forcing), the
third gives a clip one score that sees all of it (AAD-1). Writes
`runs/shapes/<size>/aapt_adversarial_weights`. `small` takes 25 minutes on one
CPU core (0.36 updates per second after two minutes of compilation), `nano` does
0.8. Expected: `loss` 1.39, `gan_accuracy` from 0.77 down to 0.6.
"""

from ml_collections import config_dict

from jaxvid.training import aapt_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  config = aapt_recipes.shapes_stage(arg or 'small', 'adversarial')
  return config_dict.ConfigDict(config)
