"""Table 6 of BlockVid: velocity forcing and Self-Forcing, together and apart.

  python -m jaxvid.main --config=configs/ablations/block_forcing.py

Four trainings of stage 2 from the same stage 1: flow matching alone, with the
Self-Forcing loss, with velocity forcing, with both. On one CPU core 5 to 8
minutes per training and, with 64 clips, a minute per measurement, of which
there are 6.
"""

from ml_collections import config_dict

from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm

ROWS = {
  'naive': ('block_plain', 'subject .0910, background .3317'),
  'self_forcing': ('block_self', 'subject .0885, background .3155'),
  'velocity_forcing': ('block_velocity', 'subject .0861, background .3015'),
  'both': (block.FULL, 'subject .0844, background .2945'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  names = [training for training, _ in ROWS.values()]
  return config_dict.ConfigDict(
    {
      **block.base('block_forcing', 'Block Forcing (Table 6)', arg),
      'trainings': block.trainings(arg, *names),
      'arms': [
        arm(name, training, block.SEMANTIC, published)
        for name, (training, published) in ROWS.items()
      ],
      'claims': [
        row
        for other in list(ROWS)[:-1]
        for row in block.drift_claims('Table 6', 'both', other)
      ],
    }
  )
