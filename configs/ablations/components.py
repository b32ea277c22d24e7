"""Table 2 of DiagDistill, and flow loss x diagonal denoising as a 2 x 2.

  python -m jaxvid.main --config=configs/ablations/components.py
  python -m jaxvid.main --config=configs/ablations/components.py \
    --config.explain

Trains three students of random digits, twice each: the full method, one that
keeps clean memory, one without the motion terms of the loss. With and without
diagonal denoising (4322222, 4444444) is a matter of sampling them. All six
trainings are shared: `allocations.py`, `context.py` and `motion.py` use them.

The paper's measures have no twin here: its total score and text alignment are
held against `right` (mean of count, colour, shape, motion and speed, as the
probe reads them), temporal quality against `motion` and `pace` (speed read /
speed said), frame quality against `shape`. Took 77 minutes on one of two busy
CPU cores.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import CLEAN, DIAGONAL, arm, claim

UNIFORM = {**DIAGONAL, 'schedule': '4444444'}
# Comparable: the paper's totals are 0.02 points apart.
EQUAL = 0.03


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      **ablations.base('components', 'Components (Table 2, 2 x 2)', arg),
      'trainings': ablations.trainings(arg, 'digits', 'clean', 'no_flow'),
      'columns': ['right', 'shape', 'motion', 'pace', 'pace@last'],
      'curves': ['pace', 'shape', 'sharpness'],
      'arms': [
        arm('full', 'digits', DIAGONAL, 'T 94.9, F 63.4, A 28.9, total 84.48'),
        arm(
          'no_forcing', 'clean', CLEAN, 'T 92.1, F 60.1, A 26.9, total 83.58'
        ),
        arm(
          'no_flow', 'no_flow', DIAGONAL, 'T 92.5, F 60.8, A 27.8, total 84.18'
        ),
        arm(
          'no_diagonal',
          'digits',
          UNIFORM,
          'T 95.1, F 63.2, A 28.6, total 84.46',
        ),
        arm('no_diagonal_no_flow', 'no_flow', UNIFORM),
      ],
      'claims': [
        claim('Table 2: without Diagonal Forcing, total', 'full', 'no_forcing'),
        claim('... temporal', 'full', 'no_forcing', 'motion'),
        claim('... frame', 'full', 'no_forcing', 'shape'),
        claim('Table 2: without the flow loss, total', 'full', 'no_flow'),
        claim('... temporal', 'full', 'no_flow', 'motion'),
        claim('... frame', 'full', 'no_flow', 'shape'),
        claim(
          'Table 2: comparable without Diagonal Denoising',
          'full',
          'no_diagonal',
          margin=EQUAL,
        ),
        claim(
          'Section 4.3: the flow loss gains more with few steps',
          'full, no_diagonal_no_flow',
          'no_flow, no_diagonal',
        ),
        claim(
          'Section 3.3: fewer steps attenuate motion, without the flow loss',
          'no_diagonal_no_flow',
          'no_flow',
          'pace',
        ),
        claim(
          'Section 4.3: the flow loss brings it back to that of many steps',
          'full',
          'no_diagonal',
          'pace',
          EQUAL,
        ),
      ],
    }
  )
