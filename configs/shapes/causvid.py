"""CausVid on the shapes world: 3 ticks, taught on noised real chunks.

  python -m jaxvid.main --config=configs/shapes/causvid.py:small

Distribution matching as Self-Forcing's, but the student never rolls out: it
sees real latents, every chunk at a noise level of its own, in one pass (full
memory, no window). Needs the latents of `configs/shapes/latents.py:long`,
the weights of `configs/shapes/ode.py` and the teacher of
`configs/shapes/teacher.py:small,long`. `chunks`: the teacher is the causal
model, as in `diagdistill.py:small,chunks`, whose start, clips and memory it
shares (the levels of its start are DiagDistill's then). Sources: CausVid; its
released config where marked.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import recipes, shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in ('', 'chunks'):
    raise UserError(f"no variant '{variant}'; there is 'chunks'")
  name = '_'.join(filter(None, ('causvid', variant)))
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  # Its own levels (`chain.py` makes these weights).
  config.distill.weights.student = f'runs/shapes/{size}/ode_causvid'
  config.distill.data.latents = f'data/latents/long_{shapes.PIXELS[size]}'
  config.distill.update(
    {
      'schedule': {'name': 'causvid'},  # *released config*: 1000, 757, 522
      'history': 'diffusion',  # *paper*
      'guidance': 4.5,  # *released config* (their 3.5 counts from c)
      'score': {'shift': 8.0},  # *released config*
      'sink': 0,  # *paper*
      'window': 21,  # *paper*: nothing is forgotten
    }
  )
  if variant:
    recipes.by_chunks(config, size)
  return config
