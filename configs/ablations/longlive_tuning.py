"""Figure 4 and Table A of LongLive: how long videos are learned, what learns.

  python -m jaxvid.main --config=configs/ablations/longlive_tuning.py

Streams of 30 s after stage 1 alone, and after as many steps of short clips, of
whole videos scored at once (naive; of 20 s, fewer steps, as many chunks) and
of streaming long tuning; adapters of several ranks against all weights; keys
and values with gradient. Trains ten. What a naive step needs of memory is in
docs/longlive.md. Takes 95 minutes on one CPU core, beside another training; two
of the trainings are shared with `longlive_switches.py`.
"""

from ml_collections import config_dict

from jaxvid.tasks import longlive_ablations
from jaxvid.tasks.ablations import arm, claim
from jaxvid.tasks.longlive_ablations import RANKS, STREAM

# Rank at 1.3B -> VBench-Long total; the ranks here are a sixteenth.
PUBLISHED = {2: '81.08', 4: '82.68', 8: '82.98', 16: '83.12', 32: '83.04'}
OTHERS = {
  'stage1': 'longlive_init',
  'short': 'longlive_short',
  'naive': 'longlive_naive',
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  base = longlive_ablations.base(
    'longlive_tuning', 'Long tuning (Figure 4), ranks (Table A)', arg
  )
  rows = [arm(name, training, STREAM) for name, training in OTHERS.items()]
  rows.append(
    arm('streaming', 'longlive', STREAM, PUBLISHED[16], 16.0, 'adapters')
  )
  rows += [
    arm(
      f'rank_{rank}',
      f'longlive_rank_{rank}',
      STREAM,
      PUBLISHED[rank],
      float(rank),
      'adapters',
    )
    for rank in RANKS
  ]
  rows.append(arm('all_weights', 'longlive_full', STREAM, '83.52'))
  rows.append(arm('kv_gradient', 'longlive_kv', STREAM))
  trained = ['longlive_short', 'longlive_naive', 'longlive', 'longlive_full']
  trained += ['longlive_kv', *(f'longlive_rank_{rank}' for rank in RANKS)]
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], 'stream.seconds=30.0', 'batch=16'],
      'trainings': longlive_ablations.trainings(arg, *trained),
      'clips': 64,
      'columns': [
        'right',
        'shape@last',
        'colour@last',
        'pace@last',
        'saturation@departure',
      ],
      'curves': ['shape', 'colour', 'pace', 'saturation'],
      'axis': 'rank',
      'arms': rows,
      'claims': [
        *(
          claim(
            f'Figure 4: streaming over {name}', 'streaming', name, 'shape@last'
          )
          for name in OTHERS
        ),
        claim('Table A: 16 over 2', 'streaming', 'rank_2'),
        claim('Table A: 16 as good as 32', 'streaming', 'rank_32', margin=0.02),
        claim('Table A: all weights over 16', 'all_weights', 'streaming'),
      ],
    }
  )
