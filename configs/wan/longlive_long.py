"""LongLive, stage 2 of Wan2.1 1.3B: streaming long tuning with adapters.

  python -m jaxvid.main --config=configs/wan/longlive_long.py
  python -m jaxvid.main --config=configs/wan/longlive_long.py:240

Videos of 60 s (or 240 s) go on from step to step by clips of 21 latents, 18 of
them new, each scored by Wan2.1 14B with the prompt that is on; the prompt
changes once in a video. Goes on from `configs/wan/longlive_init.py` and needs
pairs of prompts: two lists, line by line, as `configs/prompts.py:switch`
makes the second. The adapters are written in peft's layout to
`runs/wan/longlive_lora`. The release used 64 H100s. Not measured on a GPU.
Source: LongLive, sections 3.1 to 3.3 and appendix F; its
`longlive_train_long.yaml`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets
from jaxvid.training import recipes

PROMPTS = 'data/vidprom_filtered_extended'


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', '60', '240'):
    raise UserError(f"no variant {arg!r}; there are '60' and '240'")
  name = 'longlive_240' if arg == '240' else 'longlive'
  config = config_dict.ConfigDict(recipes.wan_student(name))
  config.loop.steps = 3000  # *paper*, for 60 s
  config.loop.optimizer.learning_rate = 1e-5  # *paper*
  config.export_adapter = f'runs/wan/{name}_lora'
  config.distill.update(recipes.longlive())
  config.distill.update(recipes.long_tuning(960 if arg == '240' else 240))
  config.distill.update(
    {
      'negative': presets.WAN_NEGATIVE,  # *released config*
      'positions': 'absolute',  # *released config*
      'lora': {'rank': 256, 'alpha': 256.0},  # *paper*; alpha: *released*
      # Re-encodes the frame before a clip as its first latent.
      'vae': 'models/wan_vae',  # *released config*
    }
  )
  config.distill.weights.student = 'runs/wan/longlive_init_weights'  # *paper*
  config.distill.critic_optimizer.learning_rate = 2e-6  # *paper*
  config.distill.data.prompts = {
    'file': f'{PROMPTS}.txt',
    'follow_ups': f'{PROMPTS}_switch.txt',
  }
  return config
