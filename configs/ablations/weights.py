"""Figure 5b of DiagDistill: the weight of the motion terms, eight of them.

  python -m jaxvid.main --config=configs/ablations/weights.py

Trains six students of random digits, and one more without either regression,
which the paper expects to collapse: should its loss stop being finite, the
run keeps its last good checkpoint and the report says "not measured". Weights
0 and 1 are students of `components.py` with seed 0. The paper does not name
its eight weights; these are ours. Takes 65 minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import DIAGONAL, GAMMAS, arm, claim


def get_config(arg: str = '') -> config_dict.ConfigDict:
  names = {0.0: 'no_flow', 1.0: 'digits'}
  names |= {g: f'gamma_{g:g}'.replace('.', '_') for g in GAMMAS}
  arms = [
    arm(f'gamma_{gamma:g}', names[gamma], DIAGONAL, '', gamma)
    for gamma in sorted(names)
  ]
  others = [f'gamma_{gamma:g}' for gamma in sorted(names) if gamma != 1]
  return config_dict.ConfigDict(
    {
      **ablations.base('weights', 'Weight of motion (Figure 5b)', arg),
      'trainings': [
        *ablations.trainings(arg, 'digits', 'no_flow', seeds=(0,)),
        *ablations.trainings(arg, *(names[g] for g in GAMMAS)),
        *ablations.trainings(arg, 'no_regression'),
      ],
      'columns': ['right', 'shape', 'motion', 'pace', 'sharpness'],
      'curves': ['pace'],
      'axis': 'gamma',
      'arms': [*arms, arm('no_regression', 'no_regression', DIAGONAL)],
      'claims': [
        *(
          claim(f'Figure 5b: gamma 1 over {name[6:]}', 'gamma_1', name)
          for name in others
        ),
        claim(
          'Appendix G: without the regressions training collapses',
          'gamma_1',
          'no_regression',
        ),
      ],
    }
  )
