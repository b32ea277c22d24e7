"""Table 4 of BlockVid: noise that rises from chunk to chunk, and shuffling.

  python -m jaxvid.main --config=configs/ablations/block_noise.py

Four trainings of stage 2 that differ in the curve alone (and stage 1 before
them), on videos of 11 s in three shots; the chunks of the full recipe also
begin from noise that is shared and not shuffled, shuffled by 2, or drawn
afresh. A chunk has 3 latents, so the paper's s = 4 is 3 here. On one CPU core 8
minutes per training and, with 64 clips, a minute per measurement, of which
there are 15.
"""

from ml_collections import config_dict

from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm

PUBLISHED = {
  'naive': 'subject .0936, background .2894',
  'linear': 'subject .0935, background .3015',
  'cosine': 'subject .0844, background .2945',
  'sigmoid': 'subject .0961, background .4027',
  'no_shuffle': 'subject .0902, background .3007',
  'shuffle_2': 'subject .0853, background .2995',
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  curves = {'naive': 'block_naive', 'linear': 'block_linear'}
  curves |= {'cosine': block.FULL, 'sigmoid': 'block_sigmoid'}
  arms = [
    arm(name, training, block.SEMANTIC, PUBLISHED[name])
    for name, training in curves.items()
  ]
  shuffles = {'no_shuffle': 0, 'shuffle_2': 2}
  arms += [
    arm(
      name,
      block.FULL,
      {**block.SEMANTIC, 'noise.shuffle': width},
      PUBLISHED[name],
    )
    for name, width in shuffles.items()
  ]
  fresh = {**block.SEMANTIC, 'noise.shuffle': 0, 'noise.shared': False}
  arms.append(arm('fresh', block.FULL, fresh))
  others = ('naive', 'linear', 'sigmoid', 'no_shuffle', 'shuffle_2')
  return config_dict.ConfigDict(
    {
      **block.base('block_noise', 'Noise of chunks (Table 4)', arg),
      'trainings': block.trainings(arg, *curves.values()),
      'arms': arms,
      'claims': [
        row
        for other in others
        for row in block.drift_claims('Table 4', 'cosine', other)
      ],
    }
  )
