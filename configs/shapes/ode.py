"""Initialises a few-step causal student by ODE regression.

  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small
  python -m jaxvid.main --config=configs/shapes/ode.py:small

  python -m jaxvid.main --config=configs/shapes/ode_pairs.py:small,causal
  python -m jaxvid.main --config=configs/shapes/ode.py:small,causal

The student sees every chunk at a time step of its own and jumps to the clean
end of the teacher's path, all chunks in one pass under the block-causal mask.
`causal` learns from the pairs of a causal model and sees the clean ends of
the chunks before instead; `causvid` asks at CausVid's time steps. Goes on
from the causal model of `causal.py:small`; the text encoder is frozen.

The student that the distillations start from is written to
`runs/shapes/<size>/ode` (`ode_causal`, `ode_causvid`), the run itself to
`ode_run`. 400 steps of `small` took 8 minutes on two CPU cores.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

VARIANTS = ('', 'causal', 'causvid')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in VARIANTS:
    names = ', '.join(VARIANTS[1:])
    raise UserError(f"no variant '{variant}'; there are {names}")
  dit, text = shapes.sizes(size)
  runs = f'runs/shapes/{size}'
  name = '_'.join(filter(None, ('ode', variant)))
  causal = variant == 'causal'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'{runs}/{name}_run',
      'export': f'{runs}/{name}',
      'export_dtype': 'float32',  # what goes on learning keeps its precision
      'loop': {
        'steps': 1000,  # *ours*; *released config*: 3,000 (CausVid)
        'optimizer': {
          'kind': 'muon',  # *ours*; *released config*: AdamW, 2e-6 at 1.3B
          'learning_rate': 2e-3,  # *ours*
          'warmup_steps': 30,  # *ours*
        },
      },
      'ode': {
        'dit': dataclasses.asdict(dit),
        'text': dataclasses.asdict(text),
        'tokenizer': shapes.TOKENIZER,
        # *ours*; *released config*: the bidirectional teacher's own weights
        'weights': f'{runs}/causal_teacher',
        'pairs': f'data/pairs/{variant or "teacher"}_{size}',
        # *paper* (digit rule, shift 5); all five levels: *ours*, so that one
        # student starts every schedule; CausVid's: *released config*
        'schedule': {'name': 'causvid' if variant == 'causvid' else '5'},
        'clean': variant == 'causvid',  # *released config*: its list ends in 0
        'form': 'causal' if causal else 'parallel',  # Causal Forcing: causal
        # *ours*: the level that the last tick of 4322222 leaves in memory.
        'context_t': 357.142857 if causal else 0.0,
        'chunk': 3,  # *paper*
        'frames': 12 if causal else 21,  # *ours*; *paper*: 21
        'batch': 16,  # *ours*; *released config*: 2 per device
      },
    }
  )
