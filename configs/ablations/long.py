"""Figures 7 and 8 of DiagDistill: streams of 45 s of three students.

  python -m jaxvid.main --config=configs/ablations/long.py

Saturation, sharpness, speed and what the probe reads, chunk by chunk, for the
students of CausVid, Self-Forcing and DiagDistill (its last chunk's ticks for
ever, and the whole allocation again and again). Trains CausVid's; that of
Self-Forcing is shared with `histories.py`, that of DiagDistill is the student
of random digits of `components.py`, seed 0. Each streams in the memory it was
trained with. Needs the latents of `configs/shapes/latents.py:long`. Each of its
four measurements takes five minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import CAUSVID, DIAGONAL, FORCED, arm, claim

OTHERS = ('causvid', 'self_forcing')
PIXELS = ('saturation', 'sharpness', 'change')
CURVES = (*PIXELS, 'pace', 'colour', 'shape', 'motion')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  base = ablations.base('long', 'Streams of 45 s (Figures 7, 8)', arg)
  seconds = ['stream.seconds=45.0', 'batch=16']
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], *seconds],
      'trainings': [
        *ablations.trainings(arg, 'digits', seeds=(0,)),
        *ablations.trainings(arg, 'self_forcing', 'causvid'),
      ],
      'clips': 64,
      'columns': [
        'right',
        'shape@last',
        'pace@last',
        'saturation@departure',
        'sharpness@drift',
      ],
      'curves': CURVES,
      'arms': [
        arm('causvid', 'causvid', CAUSVID),
        arm('self_forcing', 'self_forcing', FORCED),
        arm('diagdistill', 'digits', DIAGONAL),
        arm('diagdistill_cyclic', 'digits', {**DIAGONAL, 'cyclic': True}),
      ],
      'claims': [
        *(
          claim(
            f'Figure 7: saturation of {name} departs further',
            name,
            'diagdistill',
            'saturation@departure',
          )
          for name in OTHERS
        ),
        *(
          claim(
            f'Figure 7: {name} loses more detail',
            'diagdistill',
            name,
            'sharpness@drift',
          )
          for name in OTHERS
        ),
        *(
          claim(
            f'Figure 8: better than {name} in the end',
            'diagdistill',
            name,
            'shape@last',
          )
          for name in OTHERS
        ),
      ],
    }
  )
