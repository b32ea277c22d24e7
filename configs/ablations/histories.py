"""Figure 10 of DiagDistill: what the history is while a student learns.

  python -m jaxvid.main --config=configs/ablations/histories.py

Four students that differ in nothing else (4 ticks, clean memory, distribution
matching alone): real chunks (teacher forcing), real ones with noise (diffusion
forcing), their own (self forcing), and their own two last chunks before real
ones (diagonal forcing, panel d). All are sampled alike. Trains four; that of
self forcing is shared with `long.py`. Needs the latents of
`configs/shapes/latents.py:long`. Took 36 minutes on one of two busy CPU cores.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import FORCED, arm, claim

NAMES = ('teacher', 'diffusion', 'self', 'diagonal')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  trainings = [f'{name}_forcing' for name in NAMES]
  others = ('teacher', 'diffusion', 'self')
  return config_dict.ConfigDict(
    {
      **ablations.base('histories', 'Histories in training (Figure 10)', arg),
      'trainings': ablations.trainings(arg, *trainings),
      'columns': ['right', 'shape', 'motion', 'pace', 'saturation@departure'],
      'curves': ['shape', 'pace', 'sharpness', 'saturation'],
      'arms': [
        arm(name, training, FORCED)
        for name, training in zip(NAMES, trainings, strict=True)
      ],
      'claims': [
        *(
          claim(f'Appendix C: diagonal over {name} forcing', 'diagonal', name)
          for name in others
        ),
        *(
          claim(
            f'Appendix C: later chunks, diagonal over {name} forcing',
            'diagonal',
            name,
            'shape@last',
          )
          for name in others
        ),
        claim('Self-Forcing: self over teacher forcing', 'self', 'teacher'),
        claim('Self-Forcing: self over diffusion forcing', 'self', 'diffusion'),
      ],
    }
  )
