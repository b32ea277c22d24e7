"""Measures how well the shapes world survives its autoencoders.

  python -m jaxvid.main --config=configs/evaluate/autoencoders.py

PSNR over clips of 5 s that training never showed, and what the probe reads
in the originals and in the reconstructions, together and by the number of
objects, with 95 % intervals; `--config.output=report.json` keeps all of it.
`--config.clips=1024` takes no more memory than the 64 of the default: clips
are made a few at a time, and read in processes of their own meanwhile.
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
