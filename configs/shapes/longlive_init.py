"""LongLive, stage 1 on the shapes world: a short window and a sink.

  python -m jaxvid.main --config=configs/shapes/longlive_init.py:small

Self-Forcing's distribution matching on clips of 21 latents, but each chunk
sees the first one and the two before it only (S3W9). From the weights that
`configs/shapes/ode.py` leaves, against the teacher of
`configs/shapes/teacher.py:small,long`; `configs/shapes/longlive_long.py` goes
on from it. `sink0`: no sink (S0W12), for comparison. At size `nano` the
teacher is the causal model, as in `diagdistill.py:nano,chunks`. Source:
LongLive, section 4 and appendix F.1; its `longlive_train_init.yaml` where
marked. Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import recipes, shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in ('', 'sink0'):
    raise UserError(f"no variant '{variant}'; there is 'sink0'")
  name = '_'.join(filter(None, ('longlive_init', variant)))
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  config.distill.update(recipes.longlive())
  if size in shapes.CAUSAL_ONLY:
    recipes.by_chunks(config, size)
  if variant:
    config.distill.update({'sink': 0, 'window': 12})
  # Where stage 2 looks; it goes on learning, so it keeps its precision.
  config.export = f'runs/shapes/{size}/{name}_weights'
  config.export_dtype = 'float32'
  return config
