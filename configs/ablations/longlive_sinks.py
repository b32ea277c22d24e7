"""Table C of LongLive: sinks of 0 to 9 latents; and sink x long tuning.

  python -m jaxvid.main --config=configs/ablations/longlive_sinks.py

Streams of 30 s. S0W12, S3W9, S6W6 and S9W3 on one student, trained with S3W9;
then the four students with and without a sink, before and after long tuning,
each in its own memory: sinks are said to work after long tuning only. Trains
both kinds of stage 1 and of stage 2. Some 30 minutes on one CPU core, beside
another training; two trainings are shared with `longlive_switches.py`.
"""

from ml_collections import config_dict

from jaxvid.tasks import longlive_ablations
from jaxvid.tasks.ablations import arm, claim
from jaxvid.tasks.longlive_ablations import NO_SINK, STREAM

# VBench, consistency.
PUBLISHED = {
  0: '83.78 / 93.30',
  3: '83.98 / 94.10',
  6: '79.23 / 94.22',
  9: '74.43 / 54.65',
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  base = longlive_ablations.base(
    'longlive_sinks', 'Sinks (Table C), sink x long tuning', arg
  )
  rows = [
    arm(
      f's{sink}w{12 - sink}',
      'longlive',
      {**STREAM, 'sink': sink, 'window': 12 - sink},
      published,
      float(sink),
    )
    for sink, published in PUBLISHED.items()
  ]
  rows += [
    arm('stage1_sink', 'longlive_init', STREAM),
    arm('stage1_no_sink', 'longlive_init_sink0', NO_SINK),
    arm('long_no_sink', 'longlive_sink0', NO_SINK),
  ]
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], 'stream.seconds=30.0', 'batch=16'],
      'trainings': longlive_ablations.trainings(
        arg, 'longlive', 'longlive_sink0'
      ),
      'clips': 64,
      'columns': [
        'right',
        'shape@last',
        'colour@last',
        'pace@last',
        'saturation@departure',
      ],
      'curves': ['shape', 'colour', 'pace', 'saturation'],
      'axis': 'sink, of 12 latents',
      'arms': rows,
      'claims': [
        claim('Table C: 3 over no sink', 's3w9', 's0w12'),
        claim('Table C: 3 over 6', 's3w9', 's6w6'),
        claim('Table C: 9 collapses', 's6w6', 's9w3'),
        claim('long tuning helps', 's3w9', 'stage1_sink', 'shape@last'),
        claim(
          'Section 3.3: a sink helps after long tuning',
          's3w9',
          'long_no_sink',
          'shape@last',
        ),
        claim(
          'Section 3.3: and more so than before',
          's3w9, stage1_no_sink',
          'long_no_sink, stage1_sink',
          'shape@last',
        ),
      ],
    }
  )
