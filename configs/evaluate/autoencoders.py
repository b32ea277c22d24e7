"""Measures how well the shapes world survives its autoencoders.

  python -m jaxvid.main --config=configs/evaluate/autoencoders.py

PSNR over clips of 5 s that training never showed, and what the probe reads
in the originals and in the reconstructions.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'reconstruct',
      'vae': 'jaxvid/weights/shapes_vae',
      # None ships yet; after configs/shapes/tae.py: jaxvid/weights/shapes_tae.
      'tae': '',
      'scenes': {'split': 'heldout'},
      'sheet': 'outputs/autoencoders.png',
    }
  )
