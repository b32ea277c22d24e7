"""Table 7 of DiagDistill: chunks of 3 latents against chunks of 1.

  python -m jaxvid.main --config=configs/ablations/chunks.py

Trains one student of random digits whose chunks are single latents; the other
one is that of `components.py` with seed 0. Curves are by 3 latents for both.
Captions are the same, noise is not: it is drawn chunk by chunk. Took 16
minutes on one of two busy CPU cores, without the training that it shares.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import DIAGONAL, arm, claim


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      **ablations.base('chunks', 'Chunk size (Table 7)', arg),
      'trainings': [
        *ablations.trainings(arg, 'digits', seeds=(0,)),
        *ablations.trainings(arg, 'frame'),
      ],
      'columns': ['right', 'colour', 'shape', 'motion', 'pace'],
      'curves': ['pace', 'sharpness'],
      'arms': [
        arm('chunk_3', 'digits', DIAGONAL, 'total 84.48, Q 85.26, S 81.73'),
        arm(
          'chunk_1',
          'frame',
          {**DIAGONAL, 'chunk': 1},
          'total 84.29, Q 85.41, S 80.40',
        ),
      ],
      'claims': [
        claim('Table 7: total', 'chunk_3', 'chunk_1'),
        claim('Table 7: semantics (colour)', 'chunk_3', 'chunk_1', 'colour'),
        claim('Table 7: quality, the other way', 'chunk_1', 'chunk_3', 'shape'),
        claim(
          'Table 7: total within 0.2 points, comparable',
          'chunk_1',
          'chunk_3',
          margin=0.03,
        ),
      ],
    }
  )
