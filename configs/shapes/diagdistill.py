"""DiagDistill on the shapes world: 4, 3, then 2 ticks per chunk, none extra.

  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small
  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,digits

Distribution matching on latents and on their differences, with regressions
to the frozen causal generator (eq. 12); the memory keeps the last, noisy
tick. `digits` draws the ticks of every chunk anew, 1 to 5, so that one
student serves any digit string. `frame`: chunks of 1 latent (table 7).
`release` takes the released configs' terms instead of the paper's.

Starts from the weights of `configs/shapes/ode.py`, aims its regressions at
`configs/shapes/causal.py`'s, and learns from the teacher of
`configs/shapes/teacher.py:small,turns`.

The student that ships, `jaxvid/weights/shapes_diagdistill`, from the causal
model and the teacher that ship (7, 8 and some 50 minutes on two CPU cores):

  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small \
    --config.clips=768 --config.weights=jaxvid/weights/shapes_teacher/model
  python -m jaxvid.main --config=configs/shapes/ode.py:small \
    --config.ode.weights=jaxvid/weights/shapes/model --config.loop.steps=400 \
    --config.loop.ema_decay=0.98 --config.loop.optimizer.learning_rate=3e-3
  python -m jaxvid.main --config=configs/shapes/diagdistill.py:small,digits \
    --config.export=jaxvid/weights/shapes_diagdistill/model \
    --config.distill.weights.teacher=jaxvid/weights/shapes_teacher/model \
    --config.distill.target=gradient --config.distill.data.batch=8 \
    --config.distill.generator_every=3 --config.loop.steps=1402 \
    --config.loop.optimizer.learning_rate=5e-4 \
    --config.distill.critic_optimizer.learning_rate=8e-4
  python -m jaxvid.main --config=configs/shapes/ship.py:small,diagdistill

Its first 273 steps had the student learn every 4th step, with 3e-4 and 4e-4.
`target=gradient` is the released configs' way: no causal generator is run.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.objectives import flow_distribution
from jaxvid.training import recipes

VARIANTS = ('', 'digits', 'frame', 'release')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in VARIANTS:
    raise UserError(
      f"no variant '{variant}'; there are {', '.join(VARIANTS[1:])}"
    )
  name = '_'.join(filter(None, ('diagdistill', variant)))
  chunk, chunks = (1, 21) if variant == 'frame' else (3, 7)
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  flow = flow_distribution.FlowDistributionConfig()  # *paper*: 4, 1, 1, 4
  if variant == 'release':
    flow = flow_distribution.release()
  config.distill.weights.causal = f'runs/shapes/{size}/causal_teacher'
  config.distill.update(
    {
      'schedule': {'name': '4322222', 'commit': 'last'},  # *paper*
      'digits': '12345' if variant == 'digits' else '',  # *ours*
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
  return config
