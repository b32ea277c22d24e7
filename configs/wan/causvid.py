"""CausVid: Wan2.1 1.3B as a stream, 3 ticks and a clean one per chunk.

  python -m jaxvid.main --config=configs/wan/causvid.py \
    --config.weights=Wan2.1-T2V-1.3B --config.checkpoint=model.pt \
    --config.prompt="a cat walks on grass"

`weights` is the published folder of Wan2.1-T2V-1.3B; `checkpoint` is
`autoregressive_checkpoint/model.pt` of the CausVid release. Not measured on a
GPU.

Settings are those of CausVid (`configs/wan_causal_dmd.yaml`): 1000, 757, 522
at shift 8 (listed shifted), clean context, chunks of 3 latents, all 21 latents
of a 5 s clip visible. For longer videos the release starts anew with
overlapping clips; here the window rolls on.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {**presets.WAN_STREAM, 'checkpoint': 'model.pt', 'schedule': 'causvid'}
  )
