"""LongLive, stage 1 of Wan2.1 1.3B: a short window and a sink.

  python -m jaxvid.main --config=configs/wan/longlive_init.py

Self-Forcing's distribution matching, but each chunk sees the first one and
the two before it only (S3W9). Needs what `configs/wan/self_forcing.py:train`
needs; `configs/wan/longlive_long.py` goes on from it. The release used 64
H100s for both stages, 12 hours (32 GPU-days). Not measured on a GPU. Source:
LongLive, section 4 and appendix F.1; its `longlive_train_init.yaml`.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets
from jaxvid.training import recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  config = config_dict.ConfigDict(recipes.wan_student('longlive_init'))
  config.loop.steps = 700  # *released config*
  config.distill.update(recipes.longlive())
  config.distill.update(
    {
      'negative': presets.WAN_NEGATIVE,  # *released config*
      'positions': 'absolute',  # *released config*
    }
  )
  config.export_dtype = 'float32'  # what goes on learning keeps its precision
  return config
