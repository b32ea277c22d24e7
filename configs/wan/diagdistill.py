"""DiagDistill: 4, 3, then 2 ticks per chunk, and none to clean up.

  python -m jaxvid.main --config=configs/wan/diagdistill.py \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.checkpoint=models/longlive_base.pt \
    --config.lora=models/lora.pt --config.prompt="a cat walks on grass"

`weights` is the published folder of Wan2.1-T2V-1.3B. DiagDistill has released
no weights of its own: its configuration samples LongLive's, given here as
`checkpoint` and `lora`. `diagdistill.py:paper` takes the schedule and window
of the paper (4322222 by rule, S0W12) instead of the release's (rounded time
steps, S3W9). `--config.explain` prints the ticks. Not measured on a GPU.

The memory keeps the last denoising tick (t = 357), so the context is noisy.
Settings: DiagDistill sections 3.2 and 4, and its release
(`configs/diadistill_inference.yaml`, `pipeline/causal_inference.py`); it
decodes with the tiny autoencoder, `taew2_1.pth`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'paper'):
    raise UserError(f"no variant {arg!r}; there is 'paper'")
  sink, window = (0, 12) if arg else (3, 9)
  return config_dict.ConfigDict(
    {
      **presets.WAN_LONG,
      'decoder': 'tae',
      'schedule': '4322222' if arg else 'legacy',
      'commit': 'last',
      'sink': sink,
      'window': window,
    }
  )
