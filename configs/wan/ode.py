"""Initialises a few-step causal student of Wan2.1 1.3B by ODE regression.

  python -m jaxvid.main --config=configs/wan/ode.py
  python -m jaxvid.main --config=configs/wan/ode.py:causvid

Needs the pairs of `configs/wan/ode_pairs.py` (with the same argument) and
converted weights (`configs/convert.py`): the transformer in `models/wan_1_3b`,
text encoder and tokenizer in `models/umt5-xxl`. Writes `models/ode_init`
(`models/ode_causvid`), where the distillations start. Starts on many hosts
like every training. Not measured on a GPU.

*Released config* is CausVid's and Self-Forcing's.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.models.dit import WAN_1_3B
from jaxvid.training import recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'causvid'):
    raise UserError(f"no variant '{arg}'; there is 'causvid'")
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'runs/wan/ode_{arg or "self_forcing"}',
      'export': f'models/ode_{arg or "init"}',
      'export_dtype': 'float32',  # what goes on learning keeps its precision
      'loop': {
        'steps': 3000,  # *released config* (CausVid)
        'optimizer': {
          'learning_rate': 2e-6,  # *released config*
          'schedule': 'constant',  # *released config*
          'warmup_steps': 0,  # *released config*
          'weight_decay': 0.01,  # *ours*
          'clip_norm': 10.0,  # *ours*, as the distillation
        },
        'mesh': {'fsdp': -1},
      },
      'ode': {
        'dit': dataclasses.asdict(WAN_1_3B),
        'text': recipes.UMT5_XXL,
        'tokenizer': 'models/umt5-xxl',
        'weights': 'models/wan_1_3b',  # *released config*: the teacher's own
        'encoder': 'models/umt5-xxl',
        'pairs': f'data/pairs/wan_{arg or "self_forcing"}',
        'schedule': {'name': arg or 'self_forcing'},  # *paper*
        'clean': arg == 'causvid',  # *released config*: its list ends in 0
        'form': 'parallel',  # *paper*
        'chunk': 3,  # *paper*
        'frames': 21,  # *paper*
        'batch': 128,  # 2 per device on 64: *released config*
        'scan': True,
        'remat': 'nothing_saveable',
        'dtype': 'bfloat16',
      },
    }
  )
