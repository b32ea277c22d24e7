"""Table 4 of DiagDistill: memories of 3 to 27 latents on clips of 45.

  python -m jaxvid.main --config=configs/ablations/windows.py

One training, the student of random digits of `components.py` with seed 0. It
was trained with 12 latents in memory, 3 of them the sink; so is every memory
here, but that of 3. Larger ones than 12, and clips of more than 21 latents,
it never saw in training. The measurements take 25 minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import DIAGONAL, arm, claim

PUBLISHED = {
  3: '80.9',
  6: '81.3',
  9: '82.3',
  12: '84.3',
  15: '84.2',
  18: '84.4',
  21: '84.5',
  24: '84.3',
  27: '84.5',
}
SECONDS = 177 / 16  # 45 latents
EQUAL = 0.03


def get_config(arg: str = '') -> config_dict.ConfigDict:
  arms = []
  for size, published in PUBLISHED.items():
    sink = 0 if size == 3 else 3
    stream = {
      **DIAGONAL,
      'schedule': '4444444',  # as the table: 4 ticks for every chunk
      'sink': sink,
      'window': size - sink,
      'seconds': SECONDS,
    }
    arms.append(arm(f'm{size}', 'digits', stream, published, float(size)))
  sinkless = {**DIAGONAL, 'schedule': '4444444', 'seconds': SECONDS}
  sinkless |= {'sink': 0, 'window': 12}  # *paper*: the 4 most recent chunks
  arms.append(arm('m12_no_sink', 'digits', sinkless))
  return config_dict.ConfigDict(
    {
      **ablations.base('windows', 'Windows (Table 4)', arg),
      'trainings': ablations.trainings(arg, 'digits', seeds=(0,)),
      'clips': 128,
      'columns': ['right', 'shape', 'motion', 'pace', 'shape@last'],
      'curves': ['shape', 'pace', 'sharpness', 'saturation'],
      'axis': 'latents in memory',
      'arms': arms,
      'claims': [
        claim('Table 4: 12 over 3', 'm12', 'm3'),
        claim('Table 4: 12 over 6', 'm12', 'm6'),
        claim('Table 4: 12 over 9', 'm12', 'm9'),
        *(
          claim(
            f'Table 4: plateau, 12 against {size}',
            'm12',
            f'm{size}',
            margin=EQUAL,
          )
          for size in (15, 18, 21, 24, 27)
        ),
      ],
    }
  )
