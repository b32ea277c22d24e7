"""Trains the fast decoder of the shapes world on the VAE's latents.

  python -m jaxvid.main --config=configs/shapes/tae.py

A TAEHV-style decoder of 0.29 M parameters; the VAE's encoder gives the
latents of fresh clips. Writes `jaxvid/weights/shapes_tae`.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.models.tae import SHAPES_TAE


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'train',
      'workdir': 'runs/tae',
      'export': 'jaxvid/weights/shapes_tae',
      'export_dtype': 'float16',
      'loop': {
        'steps': 2500,
        'ema_decay': 0.995,
        'optimizer': {
          'learning_rate': 3e-3,
          'warmup_steps': 100,
          'weight_decay': 1e-4,
        },
      },
      'tae': {
        'model': dataclasses.asdict(SHAPES_TAE),
        'vae': 'jaxvid/weights/shapes_vae',
        'clips': {'lengths': (9, 17), 'batch_frames': 36},
      },
    }
  )
