"""Makes ODE pairs of the shapes world, which initialise few-step students.

  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small
  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small,causal
  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small,causvid

The default samples whole clips of 21 latents (5 s) with the bidirectional
teacher of `teacher.py:small,long`. `causal` samples chunk after chunk with
the causal model of `causal.py:small` (at size `nano`: the one that ships),
every chunk against the clean ends before it; the pairs are then one to one for
every chunk. `causvid` keeps the time steps of CausVid's student. The prompts
are captions of random scenes.

Kept are the latents at every time step that a student of any digits is asked
at, and the clean end; the solver passes through them exactly. Killed, the job
goes on with the next shard of 64 clips. The folder is
`data/pairs/<source>_<size>`. Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets
from jaxvid.training import recipes, shapes

VARIANTS = ('', 'causal', 'causvid')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  shapes.sizes(size)
  if variant not in VARIANTS:
    names = ', '.join(VARIANTS[1:])
    raise UserError(f"no variant '{variant}'; there are {names}")
  causal = variant == 'causal'
  weights = f'runs/shapes/{size}/teacher_long'
  if causal:
    weights, _ = shapes.causal_teacher(size)
  sampled = presets.CAUSAL if causal else presets.TEACHER
  return config_dict.ConfigDict(
    {
      'task': 'ode_pairs',
      'weights': weights,
      'tokenizer': shapes.TOKENIZER,
      'height': shapes.PIXELS[size],
      'width': shapes.PIXELS[size],
      'target': f'data/pairs/{variant or "teacher"}_{size}',
      'source': 'causal' if causal else 'teacher',
      # *paper* (digit rule and shift), and all five so that one cache serves
      # every schedule: *ours*; CausVid's own: *released config*.
      'schedule': {'name': 'causvid' if variant == 'causvid' else '5'},
      'solver': 'euler' if causal else 'unipc',  # *ours*
      # *ours*; *released config*: 48 Euler steps (Self-Forcing), 50 (CausVid)
      'steps': 16 if causal else 20,
      # *ours*, as the teacher is sampled; *released config*: 8
      'shift': sampled['shift'],
      # *ours*, as the teacher is sampled; *released config*: 6
      'guidance': sampled['guidance'],
      'frames': 12 if causal else 21,  # *ours*; *paper*: 21
      'chunk': 3,  # *paper*
      'clips': 1024,  # *ours*; *released config*: 1,500 (CausVid)
      'shard': 64,
      'batch': 32 if causal else 16,
      'prompts': {'scenes': {'motions': recipes.MOTIONS}} if causal else {},
    }
  )
