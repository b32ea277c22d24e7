"""Self-Forcing on the shapes world: 4 ticks and a clean one per chunk.

  python -m jaxvid.main --config=configs/shapes/self_forcing.py:small
  python -m jaxvid.main --config=configs/shapes/self_forcing.py:small,frame

Distribution matching on the student's own rollouts, from the weights that
`configs/shapes/ode.py` leaves and against the teacher of
`configs/shapes/teacher.py:small,long`. `frame`: chunks of 1 latent. `chunks`:
the teacher is the causal model, as in `diagdistill.py:small,chunks`, whose
start, clips and memory it shares. Sources: Self-Forcing; its released config
where marked.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in ('', 'frame', 'chunks'):
    raise UserError(f"no variant '{variant}'; there are 'frame' and 'chunks'")
  chunk, chunks = (1, 21) if variant == 'frame' else (3, 7)
  name = '_'.join(filter(None, ('self_forcing', variant)))
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  config.distill.update(
    {
      'schedule': {'name': 'self_forcing'},  # *paper*: 1000, 750, 500, 250
      'chunk': chunk,  # *paper*
      'sink': 0,  # *paper*
      'window': 21,  # *paper*
      'rollout': {'chunks': chunks, 'gradient_chunks': chunks},  # *paper*
    }
  )
  if variant == 'chunks':
    recipes.by_chunks(config, size)
  return config
