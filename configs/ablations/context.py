"""Figures 2 and 5a of DiagDistill: how noisy the memory is.

  python -m jaxvid.main --config=configs/ablations/context.py

Figure 2: one tick for every chunk; does the picture become clearer from chunk
to chunk where the memory is noisy? Figure 5a: the level of the memory, raw 0
to 999, by an extra pass on the finished chunk; and by the last tick itself,
which then is also where denoising ends (50, 100, 250, 400).

No training of its own: the students of random digits of `components.py`, seed
0. Both were trained at one level (raw 100, or 0); every other one is new to
them. Each of its 20 measurements takes two minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import CLEAN, DIAGONAL, arm, claim

LEVELS = (0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
LAST = (50, 100, 250, 400)
ONE = {**DIAGONAL, 'schedule': '1'}
SHARPNESS, SATURATION = 'sharpness@drift', 'saturation@drift'


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      **ablations.base('context', 'Noise of the memory (Figures 2, 5a)', arg),
      'trainings': ablations.trainings(arg, 'digits', 'clean', seeds=(0,)),
      'columns': ['right', 'shape', 'motion', 'pace', SATURATION, SHARPNESS],
      'curves': ['sharpness', 'pace', 'saturation'],
      'curve_arms': [
        'one_noisy',
        'one_last',
        'one_clean',
        'extra_100',
        'extra_900',
        'trained_clean',
      ],
      'axis': 'raw time step of the memory',
      'arms': [*_levels(), *_others()],
      'claims': [
        claim(
          'Figure 2: with noisy memory, one tick each, ever clearer',
          'one_noisy',
          '',
          SHARPNESS,
        ),
        claim(
          '... more so than with clean', 'one_noisy', 'one_clean', SHARPNESS
        ),
        *(
          claim(f'Figure 5a: 100 over {level}', 'extra_100', f'extra_{level}')
          for level in LEVELS
          if level != 100
        ),
        *(
          claim(
            f'Section 4.3: more motion at 100 than at {level}',
            'extra_100',
            f'extra_{level}',
            'pace',
          )
          for level in (500, 700, 900)
        ),
        claim(
          'Section 4.3: clean memory leads to over-saturation',
          'trained_clean',
          'last_100',
          SATURATION,
        ),
      ],
    }
  )


def _levels() -> list[dict]:
  """Both forms of the sweep."""
  arms = [
    arm(
      f'extra_{level}',
      'digits',
      {**DIAGONAL, 'commit': f'extra({level})'},
      x=float(level),
      line='extra pass',
    )
    for level in LEVELS
  ]
  for level in LAST:
    rows = (f'1000,750,500,{level}', f'1000,750,{level}', f'1000,{level}')
    stream = {**DIAGONAL, 'schedule': ';'.join(rows)}
    arms.append(
      arm(f'last_{level}', 'digits', stream, '', float(level), 'last tick')
    )
  return arms


def _others() -> list[dict]:
  return [
    arm('one_noisy', 'digits', {**ONE, 'commit': 'extra(100)'}),
    arm('one_last', 'digits', ONE),
    arm('one_clean', 'clean', {**CLEAN, 'schedule': '1'}),
    arm('trained_clean', 'clean', CLEAN),
  ]
