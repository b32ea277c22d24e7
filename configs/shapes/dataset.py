"""Builds a data set of the shapes world.

  python -m jaxvid.main --config=configs/shapes/dataset.py
  python -m jaxvid.main --config=configs/shapes/dataset.py:long \
    --config.clips.height=128 --config.clips.width=128

`short` (default): 5 s clips of one scene, 4096 + 256 + 1024 of them; about 4
minutes on one CPU core and 160 MB. `long`: 60 s clips, part of them with
follow-ups or returning scenes, 128 + 16 + 32; about 2 minutes and 65 MB.
Prints the folder. The last split (test) holds only combinations of colour,
shape, motion and speed that the others never show.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.data.shapes.clips import NAMED
from jaxvid.errors import UserError


def get_config(arg: str = '') -> config_dict.ConfigDict:
  name = arg or 'short'
  if name not in NAMED:
    raise UserError(f'no data set {name!r}; there are {", ".join(NAMED)}')
  return config_dict.ConfigDict(
    {
      'task': 'dataset',
      'folder': 'data',
      'name': name,
      'clips': dataclasses.asdict(NAMED[name]),
    }
  )
