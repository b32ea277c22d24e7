"""Wan2.1 text to video: 50 UniPC ticks over the whole clip, with guidance.

  python -m jaxvid.main --config=configs/wan/teacher.py \
    --config.weights=Wan2.1-T2V-1.3B --config.prompt="a cat walks on grass"

`configs/wan/teacher.py:14B` takes the settings of the larger model. The
folder is the published one (transformer, `Wan2.1_VAE.pth`,
`models_t5_umt5-xxl-enc-bf16.pth`, `google/umt5-xxl/spiece.model`); with the
`hub` extra its id works too. 5 s at 480x832. Not measured on a GPU.

Settings are those of Wan2.1 (`generate.py`, `wan/text2video.py`): 50 steps,
UniPC, shift 5, guidance 5; for 1.3B its README recommends guidance 6 and
shift 8 to 12, taken here as 6 and 8.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets

# Size -> (shift, guidance).
RECOMMENDED = {'1.3B': (8.0, 6.0), '14B': (5.0, 5.0)}


def get_config(arg: str = '1.3B') -> config_dict.ConfigDict:
  if arg not in RECOMMENDED:
    raise UserError(f'no settings for {arg!r}; there are 1.3B and 14B')
  shift, guidance = RECOMMENDED[arg]
  return config_dict.ConfigDict(
    {
      **presets.WAN,
      'negative_prompt': presets.WAN_NEGATIVE,
      'weights': f'Wan2.1-T2V-{arg}',
      'schedule': 'teacher',
      'steps': 50,
      'solver': 'unipc',
      'shift': shift,
      'guidance': guidance,
    }
  )
