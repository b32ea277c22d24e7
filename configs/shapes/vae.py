"""Trains the VAE of the shapes world, in stages.

  python -m jaxvid.main --config=configs/shapes/vae.py:image
  python -m jaxvid.main --config=configs/shapes/vae.py:video
  python -m jaxvid.main --config=configs/shapes/vae.py:longer
  python -m jaxvid.main --config=configs/shapes/vae.py:decoder
  python -m jaxvid.main --config=configs/shapes/vae.py:decoder \
    --config.vae.frozen=jaxvid/weights/shapes_vae --config.loop.steps=1600 \
    --config.workdir=runs/vae_decoder_again

About 14, 7, 11 and 8 minutes on two CPU cores, and 35 for the last, which
shared them. `image` learns single
pictures: quick, since a fresh network treats every frame as one; 31.4 dB on
pictures. `video` and `longer` go on with clips and write the finished encoder
to `runs/vae_frozen`, with the statistics of its latents; 29.2 dB on clips of
5 s that were held out. `decoder` keeps the encoder, so that cached latents
stay valid, refines the decoder on slightly noisy latents and writes
`jaxvid/weights/shapes_vae`: 29.75 dB on 64 other clips, 29.17 before, 30.23
after the second pass.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.models.vae import SHAPES_VAE

# Frames per clip (batches take turns), frames per batch, steps, peak learning
# rate, decay of the average, run to start from, folder for the result.
STAGES = {
  'image': ((1,), 24, 2000, 3e-3, 0.99, '', ''),
  'video': ((5, 13), 26, 750, 1.5e-3, 0.99, 'vae_image', ''),
  'longer': ((5, 13, 9), 34, 800, 1.2e-3, 0.99, 'vae_video', 'vae_frozen'),
  'decoder': ((9, 17), 34, 1050, 4e-4, 0.99, '', ''),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  stage = arg or 'image'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  lengths, batch_frames, steps, rate, decay, start, export = STAGES[stage]
  shipped = stage == 'decoder'
  if shipped:
    export = 'jaxvid/weights/shapes_vae'
  elif export:
    export = f'runs/{export}'
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'runs/vae_{stage}',
      'export': export,
      # What goes on learning keeps its precision.
      'export_dtype': 'float16' if shipped else 'float32',
      'loop': {
        'steps': steps,
        'init_from': f'runs/{start}' if start else '',
        'ema_decay': decay,
        'optimizer': {
          'learning_rate': rate,
          'warmup_steps': 100 if stage == 'image' else 30,
          'weight_decay': 1e-4,
        },
      },
      'vae': {
        'model': dataclasses.asdict(SHAPES_VAE),
        'clips': {'lengths': lengths, 'batch_frames': batch_frames},
        'frozen': 'runs/vae_frozen' if shipped else '',
      },
    }
  )
