"""The paper's central claim: how much moves, chunk by chunk.

  python -m jaxvid.main --config=configs/ablations/motion.py

Speed (read / said, and mean change of luma) by chunk with and without the
motion terms of the loss, with few and with many ticks, and per level of the
memory. No training of its own: the students of random digits of
`components.py`, both seeds; levels are those of `context.py`. Each of its 24
measurements takes two to three minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import CLEAN, DIAGONAL, arm, claim

LEVELS = (0, 300, 500, 700, 900)
UNIFORM = {**DIAGONAL, 'schedule': '4444444'}
TWO = {**DIAGONAL, 'schedule': '2'}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  arms = [
    arm('flow', 'digits', DIAGONAL),
    arm('no_flow', 'no_flow', DIAGONAL),
    arm('flow_4444444', 'digits', UNIFORM),
    arm('no_flow_4444444', 'no_flow', UNIFORM),
    arm('flow_2222222', 'digits', TWO),
    arm('no_flow_2222222', 'no_flow', TWO),
    arm('clean', 'clean', CLEAN),
  ]
  arms += [
    arm(
      f'level_{level}',
      'digits',
      {**DIAGONAL, 'commit': f'extra({level})'},
      x=float(level),
    )
    for level in LEVELS
  ]
  return config_dict.ConfigDict(
    {
      **ablations.base('motion', 'Motion amplitude by chunk', arg),
      'trainings': ablations.trainings(arg, 'digits', 'no_flow', 'clean'),
      'columns': ['pace', 'pace@first', 'pace@last', 'pace@drift', 'change'],
      'curves': ['pace', 'pixel_speed', 'change', 'motion'],
      'axis': 'raw time step of the memory',
      'arms': arms,
      'claims': _claims(),
    }
  )


def _claims() -> list[dict]:
  return [
    claim('Figure 6: more motion with flow loss', 'flow', 'no_flow', 'pace'),
    claim('... in the last chunk', 'flow', 'no_flow', 'pace@last'),
    claim('... as change of the picture', 'flow', 'no_flow', 'change'),
    claim(
      'Section 1: few ticks in later chunks attenuate motion',
      'no_flow_4444444',
      'no_flow',
      'pace@last',
    ),
    claim(
      'Section 1: the flow loss makes up for it',
      'flow, no_flow_4444444',
      'no_flow, flow_4444444',
      'pace@last',
    ),
    claim(
      'Appendix E.2: motion of early chunks carries later ones',
      'flow',
      'flow_2222222',
      'pace@last',
    ),
    *(
      claim(
        f'Section 4.3: noisier memory ({level}) moves less',
        'flow',
        f'level_{level}',
        'pace',
      )
      for level in LEVELS[1:]
    ),
  ]
