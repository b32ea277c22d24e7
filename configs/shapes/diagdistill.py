"""DiagDistill on the shapes world: 4, 3, then 2 ticks per chunk, none extra.

  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small
  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,digits
  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,chunks

Distribution matching on latents and on their differences, with regressions
to the frozen causal generator (eq. 12); the memory keeps the last, noisy
tick. `digits` draws the ticks of every chunk anew, 1 to 5, so that one
student serves any digit string. `frame`: chunks of 1 latent (table 7).
`release` takes the released configs' terms instead of the paper's.

Starts from the weights of `configs/shapes/ode.py`, aims its regressions at
`configs/shapes/causal.py`'s, and learns from the teacher of
`configs/shapes/teacher.py:small,long`.

`chunks` is `digits` with another teacher, the causal model: it and the critic
see every chunk behind the clean ones before it, clips of 4 chunks. It starts
from `configs/shapes/ode.py:small,causal`; `frame_chunks` is the same for chunks
of 1 latent, which the teacher sees in threes. Where a teacher of whole clips is
weak the student loses what it does not know best: circling became falling,
pulsing became standing still (docs/model_card.md).

The student that ships, `jaxvid/weights/shapes_diagdistill`, is `chunks`, twice.
First from the causal model as it was after 600 steps of its third stage (OLD
below): the mean of four moments of one run. Its pairs and their regression (8
and 12 minutes on two CPU cores that did other work, too):

  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small,causal \
    --config.weights=OLD --config.batch=32 \
    --config.prompts.scenes.motions="MOTIONS"
  python -m jaxvid.main --config=configs/shapes/ode.py:small,causal \
    --config.ode.weights=OLD --config.loop.steps=500 \
    --config.loop.ema_decay=0.98 --config.loop.optimizer.learning_rate=3e-3 \
    --config.ode.context_t=357.142857

Then the run, four times, each going on where the one before ended (some 55
minutes for the first two, 53 and 30 for the others beside another training):

  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,chunks \
    --config.distill.weights.teacher=OLD \
    --config.loop.steps=STEPS --config.export=runs/student_STEPS \
    --config.distill.guidance=W --config.loop.ema_decay=DECAY \
    --config.loop.optimizer.learning_rate=RATE \
    --config.distill.critic_optimizer.learning_rate=CRITIC

  STEPS     W  DECAY    RATE  CRITIC
    900     3   0.99    3e-4    6e-4
  1,398   4.5   0.99    5e-4    8e-4
  2,400     3   0.99    4e-4    8e-4
  2,850     3   0.98  1.2e-4    6e-4

  python -m jaxvid.main --config=configs/average.py \
    --config.output=runs/student_mean \
    --config.weights="('runs/student_900','runs/student_1398', \
      'runs/student_2400','runs/student_2850')"

From there once more, with the causal model that ships (some 30 minutes beside
another training):

  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,chunks \
    --config.workdir=runs/shapes/small/diagdistill_again \
    --config.distill.weights.teacher=jaxvid/weights/shapes/model \
    --config.distill.weights.student=runs/student_mean \
    --config.loop.steps=1500 --config.loop.ema_decay=0.993 \
    --config.loop.optimizer.learning_rate=2e-4 \
    --config.distill.data.prompts.scenes.motions="('left','right','up', \
      'down','bounce','bounce','orbit','orbit','grow','grow','still')" \
    --config.export=jaxvid/weights/shapes_diagdistill/model
  python -m jaxvid.main --config=configs/shapes/ship.py:small,diagdistill

MOTIONS stands for `recipes.MOTIONS`, a tuple. 357.14 is the level that the last
tick leaves in memory. `target=gradient` is the released configs' way: no causal
generator is run for the regressions.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.objectives import flow_distribution
from jaxvid.training import recipes

VARIANTS = ('', 'digits', 'frame', 'release', 'chunks', 'frame_chunks')
DIGITS = ('digits', 'chunks', 'frame_chunks')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in VARIANTS:
    raise UserError(
      f"no variant '{variant}'; there are {', '.join(VARIANTS[1:])}"
    )
  name = '_'.join(filter(None, ('diagdistill', variant)))
  chunk, chunks = (1, 21) if variant.startswith('frame') else (3, 7)
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  flow = flow_distribution.FlowDistributionConfig()  # *paper*: 4, 1, 1, 4
  if variant == 'release':
    flow = flow_distribution.release()
  config.distill.weights.causal = f'runs/shapes/{size}/causal_teacher'
  config.distill.update(
    {
      'schedule': {'name': '4322222', 'commit': 'last'},  # *paper*
      'digits': '12345' if variant in DIGITS else '',  # *ours*
      'chunk': chunk,  # *paper*
      'sink': 3,  # *released config*; the paper's text: 0
      'window': 9,  # *released config*; the paper's text: 12
      'positions': 'relative',  # *ours*: streams without end
      'rollout': {'chunks': chunks, 'gradient_chunks': chunks},  # *paper*
      'flow': dataclasses.asdict(flow),
      'target': 'gradient' if variant == 'release' else 'causal',  # *paper*
      # *ours*: the causal generator as it is sampled before distillation.
      'target_schedule': {'name': 'euler', 'steps': 16},
      'target_guidance': 3.0,  # *ours*
    }
  )
  if variant.endswith('chunks'):
    recipes.by_chunks(config, size)
    config.loop.steps = 900
  if variant == 'frame_chunks':
    config.distill.scored_chunk = 3
    config.distill.rollout = {'chunks': 12, 'gradient_chunks': 12}
  return config
