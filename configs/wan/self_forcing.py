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
"""

from ml_collections import config_dict

from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      **presets.WAN_STREAM,
      'checkpoint': 'self_forcing_dmd.pt',
      'schedule': 'self_forcing',
      'shift': 5.0,
    }
  )
