"""Table 7 of BlockVid: short takes only, long ones only, both.

  python -m jaxvid.main --config=configs/ablations/block_stages.py

Stage 1 (clips of 5 s), stage 2 alone (clips of 11 s, from the causal model),
and both. The paper's long takes have 50 s and more. On one CPU core 8 to 13
minutes per training and, with 64 clips, a minute per measurement, of which
there are 5.
"""

from ml_collections import config_dict

from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm

ROWS = {
  'stage_1': (block.STAGE_1, 'subject .8891, background 1.1573'),
  'stage_2': ('block_stage2', 'subject .1752, background .4722'),
  'both': (block.FULL, 'subject .0844, background .2945'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  names = [training for training, _ in ROWS.values()]
  return config_dict.ConfigDict(
    {
      **block.base('block_stages', 'Post-training data (Table 7)', arg),
      'trainings': block.trainings(arg, *names),
      'arms': [
        arm(name, training, block.SEMANTIC, published)
        for name, (training, published) in ROWS.items()
      ],
      'claims': [
        *block.drift_claims('Table 7', 'both', 'stage_1'),
        *block.drift_claims('Table 7', 'both', 'stage_2'),
        *block.drift_claims('Table 7', 'stage_2', 'stage_1'),
      ],
    }
  )
