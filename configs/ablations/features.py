"""Table 9 of DiagDistill: seven motion features.

  python -m jaxvid.main --config=configs/ablations/features.py

Trains six students of random digits; the seventh, the learned convolution on
differences, is that of `components.py` with seed 0. Takes 45 minutes on one CPU
core.
"""

import itertools

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import DIAGONAL, arm, claim

PUBLISHED = {
  'raw': 'T 92.5, F 60.8, A 27.8',
  'difference': 'T 93.8, F 61.5, A 28.2',
  'correlation': 'T 94.2, F 62.1, A 28.4',
  'low': 'T 93.5, F 61.8, A 28.1',
  'high': 'T 94.0, F 62.3, A 28.5',
  'mlp': 'T 94.6, F 63.2, A 28.7',
  'conv': 'T 94.9, F 63.4, A 28.9',
}
# By temporal quality, best first.
ORDER = ('conv', 'mlp', 'correlation', 'high', 'difference', 'low', 'raw')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  def training(kind):
    return 'digits' if kind == 'conv' else f'feature_{kind}'

  names = [training(kind) for kind in PUBLISHED if kind != 'conv']
  return config_dict.ConfigDict(
    {
      **ablations.base('features', 'Motion features (Table 9)', arg),
      'trainings': [
        *ablations.trainings(arg, 'digits', seeds=(0,)),
        *ablations.trainings(arg, *names),
      ],
      'columns': ['right', 'shape', 'motion', 'pace'],
      'curves': ['pace'],
      'arms': [
        arm(kind, training(kind), DIAGONAL, published)
        for kind, published in PUBLISHED.items()
      ],
      'claims': [
        *(
          claim(f'Table 9, temporal: {a} over {b}', a, b, 'motion')
          for a, b in itertools.pairwise(ORDER)
        ),
        *(
          claim(f'Table 9: conv over {kind}', 'conv', kind)
          for kind in ORDER[1:]
        ),
      ],
    }
  )
