"""Trains text encoder and transformer as a bidirectional teacher, in stages.

  python -m jaxvid.main --config=configs/shapes/latents.py:short
  python -m jaxvid.main --config=configs/shapes/latents.py:long
  python -m jaxvid.main --config=configs/shapes/teacher.py:small
  python -m jaxvid.main --config=configs/shapes/teacher.py:small,forced
  python -m jaxvid.main --config=configs/shapes/teacher.py:small,refined
  (configs/shapes/causal.py)
  python -m jaxvid.main --config=configs/shapes/teacher.py:small,long

Flow matching, prompts dropped for one clip in ten. `short` learns from 7
latents (1.6 s) with one noise level per clip: colours, shapes, speeds, and
along which axis things move, but not which way. With one level for all frames,
wherever a thing can be seen its direction can be seen too. `forced` gives each
latent a level of its own, each seeing only those before it (diffusion
forcing), and needs no more than some hundred steps to read left and right,
up and down from the caption. `refined` is a bidirectional teacher again;
half of its clips show their first latent at a level of its own, which keeps
what was learned. `long` has 21 latents (5 s) and goes on from the causal model,
which knows directions best. The more latents, the more noise it takes until a
motion can no longer be seen: its levels are shifted far (8), to where the
direction is still open.

The others start from the averaged weights of the stage before. The shipped
`jaxvid/weights/shapes_teacher` is `long` on 4,096 long clips (`latents.py:long
--config.clips=4096`) from the causal model as it was before its last stage
(`--config.loop.init_from=runs/shapes/small/causal_long`): some 40 minutes on
two busy CPU cores.

Sizes: nano, small (64x64), base (128x128; cache `latents.py:short,128` first).
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

EVEN = {'times': 'uniform', 'shift': 3.0}
# Where things are and how they move is settled in the noise: shift > 1.
FLOWS = {
  'short': {'forcing': 'none', 'shift': 2.2},
  'forced': {'forcing': 'diffusion', 'chunk': 1, **EVEN},
  'refined': {'forcing': 'none', 'staggered': 0.5, **EVEN},
  'long': {'forcing': 'none', 'staggered': 0.5, **EVEN, 'shift': 8.0},
}
# Latent frames, batch, steps, peak learning rate, what follows the warm-up, run
# to start from, cache of latents.
STAGES = {
  'short': (7, 32, 8000, 1e-2, 'cosine', '', 'short'),
  'forced': (7, 32, 1000, 1e-2, 'constant', 'teacher_short', 'short'),
  'refined': (7, 32, 2200, 5e-3, 'cosine', 'teacher_forced', 'short'),
  'long': (21, 16, 1800, 4e-3, 'cosine', 'causal_teacher', 'long'),
}
LAST = 'long'


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, stage = (arg or 'small').partition(',')
  stage = stage or 'short'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  dit, text = shapes.sizes(size)
  frames, batch, steps, rate, schedule, before, cache = STAGES[stage]
  runs = f'runs/shapes/{size}'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/teacher_{stage}',
      'export': shapes.exported('shapes_teacher', size)
      if stage == LAST
      else '',
      'export_dtype': 'float16',
      'loop': {
        'sample_every': 1000,
        'steps': steps,
        'init_from': f'{runs}/{before}' if before else '',
        'optimizer': {
          'kind': 'muon',
          'learning_rate': rate,
          'schedule': schedule,
          'warmup_steps': 50 if before else 100,
          # One text encoder for the teacher and all its students.
          'frozen': '^text/' if frames > 7 else '',
        },
      },
      'diffusion': {
        'dit': dataclasses.asdict(dit),
        'text': dataclasses.asdict(text),
        'tokenizer': shapes.TOKENIZER,
        'sample': shapes.sample_videos(size),
        'flow': FLOWS[stage],
        'data': {
          'latents': f'data/latents/{cache}_{shapes.PIXELS[size]}',
          'frames': frames,
          'batch': batch,
        },
      },
    }
  )
