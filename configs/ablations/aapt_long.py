"""AAPT's long-video training: streams of a minute, with and without it.

  python -m jaxvid.main --config=configs/ablations/aapt_long.py

Four generators: no long videos, as many more updates on short ones, videos of
one more segment, then of five (supplement D: without, a model drifts after the
length it was trained at). Shares its first trainings with `aapt.py`. On one
CPU core the other three take 3 to 6 minutes each and a measurement of 64 clips
6.
"""

from ml_collections import config_dict

from jaxvid.tasks import aapt_ablations
from jaxvid.tasks.aapt_ablations import arm
from jaxvid.tasks.ablations import claim

OTHERS = ('short', 'more')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  base = aapt_ablations.base('aapt_long', 'AAPT, streams of 60 s', arg)
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], 'stream.seconds=60.0', 'batch=16'],
      'trainings': aapt_ablations.trainings(
        arg, 'aapt_student', 'aapt_more', 'aapt_long1', 'aapt_long5'
      ),
      'clips': 64,
      'columns': [
        'shape@first',
        'shape@last',
        'motion@last',
        'pace@last',
        'sharpness@departure',
        'saturation@departure',
      ],
      'curves': ['shape', 'colour', 'pace', 'sharpness', 'saturation'],
      'arms': [
        arm('short', 'aapt_student', 'drifts after its training length'),
        arm('more', 'aapt_more'),
        arm('one', 'aapt_long1'),
        arm('five', 'aapt_long5', 'a minute'),
        arm('five_relative', 'aapt_long5', positions='relative'),
      ],
      'claims': [
        *(
          claim(f'D: long videos over {other}', 'five', other, metric)
          for other in OTHERS
          for metric in ('shape@last', 'motion@last')
        ),
        *(
          claim(
            f'D: {other} departs further', other, 'five', 'saturation@departure'
          )
          for other in OTHERS
        ),
        claim('D: five over one', 'five', 'one', 'shape@last'),
      ],
    }
  )
