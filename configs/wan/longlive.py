"""LongLive: minutes of Wan2.1 1.3B, with a sink and a short window.

  python -m jaxvid.main --config=configs/wan/longlive.py \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.checkpoint=models/longlive_base.pt \
    --config.lora=models/lora.pt --config.seconds=60 \
    --config.prompt="a cat walks on grass"

`weights` is the published folder of Wan2.1-T2V-1.3B; `checkpoint` and `lora`
are those of the LongLive-1.3B release. `longlive.py:infinity` takes
window-relative positions, as its `longlive_inference_infinity.yaml` does.
Not measured on a GPU.

  python -m jaxvid.main --config=configs/wan/longlive.py:interactive \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.checkpoint=models/longlive_base.pt \
    --config.lora=models/lora.pt \
    --config.switch.script=interactive_example.jsonl --config.switch.line=0

Six prompts in 60 s: the release's script, switches and re-cache (one pass,
the sink kept; `--config.switch.cache=recache` for the paper's). A script may
also say its own times (`docs/interactive.md`), and `--config.switch.live`
takes prompts as they are typed.

Settings are those of LongLive (`configs/longlive_inference.yaml`): raw 1000,
750, 500, 250 at shift 5, clean context, chunks of 3 latents, S3W9
(local_attn_size 12, sink_size 3), LoRA rank and alpha 256.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'infinity', 'interactive'):
    raise UserError(
      f"no variant {arg!r}; there are 'infinity' and 'interactive'"
    )
  interactive = {
    'seconds': 60.0,  # *released config*: 240 latents
    'switch': {
      'cache': 'upstream',
      'sink': 'keep',  # *released config*: global_sink
      'frames': (40, 80, 120, 160, 200),  # *released config*
    },
  }
  return config_dict.ConfigDict(
    {
      **presets.WAN_LONG,
      'seconds': 30.0,
      'schedule': 'self_forcing',
      'shift': 5.0,
      'positions': 'relative' if arg == 'infinity' else 'absolute',
      **(interactive if arg == 'interactive' else {}),
    }
  )
