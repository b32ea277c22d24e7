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

  python -m jaxvid.main --config=configs/wan/causvid.py:train

trains it by distribution matching on noised real clips, against Wan2.1 14B
(the release: against 1.3B). Needs cached latents of real videos in
`data/latents/wan`, the weights of `configs/wan/ode.py:causvid` and converted
weights (`configs/convert.py`) below `models/`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets
from jaxvid.training import recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg == 'train':
    return training()
  if arg:
    raise UserError(f"no variant {arg!r}; there is 'train'")
  return config_dict.ConfigDict(
    {**presets.WAN_STREAM, 'checkpoint': 'model.pt', 'schedule': 'causvid'}
  )


def training() -> config_dict.ConfigDict:
  """Distribution matching on noised real clips, all chunks in one pass."""
  config = config_dict.ConfigDict(recipes.wan_student('causvid'))
  config.loop.optimizer.beta1 = 0.9  # *released config*
  config.distill.critic_optimizer.beta1 = 0.9  # *released config*
  config.distill.weights.student = 'models/ode_causvid'
  config.distill.data.latents = 'data/latents/wan'
  config.distill.update(
    {
      'negative': presets.WAN_NEGATIVE,  # *released config*
      'schedule': {'name': 'causvid'},  # *released config*: 1000, 757, 522
      'history': 'diffusion',  # *paper*
      'guidance': 4.5,  # *released config* (their 3.5 counts from c)
      'score': {'shift': 8.0},  # *released config*
      'sink': 0,  # *paper*
      'window': 21,  # *paper*: nothing is forgotten
    }
  )
  return config
