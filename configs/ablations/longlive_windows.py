"""Figure 7 of LongLive: windows of 3 to 27 latents, and a sink with a window.

  python -m jaxvid.main --config=configs/ablations/longlive_windows.py

Videos of 10 s of one student, trained with S3W9, in windows without a sink
and in S3W9. What a window costs in time and memory is measured apart:
`configs/benchmark/windows.py`. Trains stage 1 and stage 2 (shared with
`longlive_switches.py`); measuring takes 27 minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import longlive_ablations
from jaxvid.tasks.ablations import arm, claim
from jaxvid.tasks.longlive_ablations import STREAM

WINDOWS = (3, 6, 9, 12, 15, 18, 21, 24, 27)
EQUAL = 0.03


def get_config(arg: str = '') -> config_dict.ConfigDict:
  base = longlive_ablations.base(
    'longlive_windows', 'Windows and a sink (Figure 7)', arg
  )
  rows = [
    arm(
      f'w{window}',
      'longlive',
      {**STREAM, 'sink': 0, 'window': window},
      x=float(window),
      line='no sink',
    )
    for window in WINDOWS
  ]
  rows.append(arm('s3w9', 'longlive', STREAM, '', 12.0, 'sink of 3'))
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], 'stream.seconds=10.0'],
      'trainings': longlive_ablations.trainings(arg, 'longlive'),
      'clips': 128,
      'columns': ['right', 'shape@last', 'colour@last', 'pace@last'],
      'curves': ['shape', 'pace'],
      'axis': 'latents in memory',
      'arms': rows,
      'claims': [
        *(
          claim(f'Figure 7: 21 over {window}', 'w21', f'w{window}')
          for window in (3, 6, 9)
        ),
        claim('Figure 7: saturates', 'w21', 'w27', margin=EQUAL),
        claim('Figure 7: S3W9 as good as 21', 's3w9', 'w21', margin=EQUAL),
        claim('Figure 7: S3W9 over 12', 's3w9', 'w12'),
      ],
    }
  )
