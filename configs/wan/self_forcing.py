"""Self-Forcing: Wan2.1 1.3B as a stream, 4 ticks and a clean one per chunk.

  python -m jaxvid.main --config=configs/wan/self_forcing.py \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.checkpoint=self_forcing_dmd.pt \
    --config.prompt="a cat walks on grass"

`weights` is the published folder of Wan2.1-T2V-1.3B (text encoder, VAE,
tokenizer); `checkpoint` is the transformer of the Self-Forcing release, in
that folder or anywhere. `--config.decoder=tae` takes `taew2_1.pth` instead
of the VAE: faster, a little softer. Not measured on a GPU.

Settings are those of Self-Forcing (`configs/self_forcing_dmd.yaml`): raw
1000, 750, 500, 250 at shift 5, clean context, chunks of 3 latents, all 21
latents of a 5 s clip visible (S0W21; longer videos forget the oldest).

  python -m jaxvid.main --config=configs/wan/self_forcing.py:train
  python -m jaxvid.main --config=configs/wan/self_forcing.py:train,frame

trains it by distribution matching on its own rollouts, against Wan2.1 14B.
Needs the weights of `configs/wan/ode.py`, prompts (`configs/prompts.py`) and
converted weights (`configs/convert.py`) below `models/`, and starts on many
hosts like every training; `frame`: chunks of 1 latent. The release used 64
H100s, a clip each. SiD instead: `--config.distill.objective=sid`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets
from jaxvid.training import recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg in ('train', 'train,frame'):
    return training('frame' in arg)
  if arg:
    raise UserError(f"no variant {arg!r}; there are 'train' and 'train,frame'")
  return config_dict.ConfigDict(
    {
      **presets.WAN_STREAM,
      'checkpoint': 'self_forcing_dmd.pt',
      'schedule': 'self_forcing',
      'shift': 5.0,
    }
  )


def training(frame: bool) -> config_dict.ConfigDict:
  """Distribution matching on the student's own rollouts."""
  chunk, chunks = (1, 21) if frame else (3, 7)
  name = 'self_forcing_frame' if frame else 'self_forcing'
  config = config_dict.ConfigDict(recipes.wan_student(name))
  config.distill.update(
    {
      'negative': presets.WAN_NEGATIVE,  # *released config*
      'schedule': {'name': 'self_forcing'},  # *paper*: 1000, 750, 500, 250
      'chunk': chunk,  # *paper*
      'sink': 0,  # *paper*
      'window': 21,  # *paper*
      'rollout': {'chunks': chunks, 'gradient_chunks': chunks},  # *paper*
    }
  )
  return config
