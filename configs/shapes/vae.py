"""Trains the VAE of the shapes world, in stages.

  python -m jaxvid.main --config=configs/shapes/vae.py:image
  python -m jaxvid.main --config=configs/shapes/vae.py:video
  python -m jaxvid.main --config=configs/shapes/vae.py:decoder

`image` learns single pictures: quick, since a fresh network treats every
frame as one. `video` goes on with clips and writes the finished encoder and
decoder to `runs/vae_frozen`, with the statistics of its latents. `decoder`
keeps the encoder, so that cached latents stay valid, refines the decoder on
slightly noisy latents and writes `jaxvid/weights/shapes_vae`.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.models.vae import SHAPES_VAE

# Frames per clip (batches take turns), frames per batch, steps, peak learning
# rate, weights to start from, folder for the result.
STAGES = {
  'image': ((1,), 24, 2000, 3e-3, '', ''),
  'video': ((9, 5, 13), 36, 2500, 2e-3, 'runs/vae_image', 'runs/vae_frozen'),
  'decoder': ((13, 21), 42, 3000, 1e-3, '', 'jaxvid/weights/shapes_vae'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  stage = arg or 'image'
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  lengths, batch_frames, steps, rate, start, export = STAGES[stage]
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': f'runs/vae_{stage}',
      'export': export,
      # What goes on learning keeps its precision.
      'export_dtype': 'float16' if stage == 'decoder' else 'float32',
      'loop': {
        'steps': steps,
        'init_from': start,
        'ema_decay': 0.99 if stage == 'image' else 0.998,
        'optimizer': {
          'learning_rate': rate,
          'warmup_steps': 100,
          'weight_decay': 1e-4,
        },
      },
      'vae': {
        'model': dataclasses.asdict(SHAPES_VAE),
        'clips': {'lengths': lengths, 'batch_frames': batch_frames},
        'frozen': 'runs/vae_frozen' if stage == 'decoder' else '',
      },
    }
  )
