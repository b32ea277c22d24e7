"""Caches latents of the shapes world for training.

  python -m jaxvid.main --config=configs/shapes/latents.py:short
  python -m jaxvid.main --config=configs/shapes/latents.py:long
  python -m jaxvid.main --config=configs/shapes/latents.py:scripts
  python -m jaxvid.main --config=configs/shapes/latents.py:scripts_long
  python -m jaxvid.main --config=configs/shapes/latents.py:scripts_open
  python -m jaxvid.main --config=configs/shapes/latents.py:turns
  python -m jaxvid.main --config=configs/shapes/latents.py:switches
  python -m jaxvid.main --config=configs/shapes/latents.py:pulses

The encoder is final when the VAE's `video` stage is, so caching need not wait
for its decoder: `--config.vae=runs/vae_frozen`.

`short`: clips of 7 latents (25 frames). `long`: 21 latents (81 frames, 5 s).
`scripts`: 5 s in two shots, the second changes one thing. `scripts_long`: 45
latents (177 frames, 11 s) in three shots, the third returns to the scene of
the first. `scripts_open`: the same, captions of that scene leave sizes and
background open, those of the other say both. Clips of scripts have one caption
per chunk, others eight wordings.
`turns`: 5 s of one thing that circles or pulses. `switches`: as `scripts`, with
more of the changes that are learnt last: of motion, above all to pulsing, and
of size. `pulses`: changes of motion alone, a quarter of them to pulsing.
Another size of the picture: `latents.py:short,128`. The folder is
`data/latents/<length>_<size>`. Stopped with Ctrl-C or killed, the job
goes on with the next shard of 512 clips; asking for more `--config.clips`
later adds shards, and a training may start as soon as one is there.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import recipes

# Frames and clips of each length.
LENGTHS = {
  'short': (25, 24_576),
  'long': (81, 2_560),
  'scripts': (81, 1_024),
  'scripts_long': (177, 512),
  'turns': (81, 1_536),
  'switches': (81, 2_048),
  'pulses': (81, 1_024),
  'scripts_open': (177, 512),
}
# Single objects in the motions that are learnt last.
TURNS = {'counts': (1.0,), 'motions': ('orbit', 'orbit', 'grow')}
SCRIPTS = {
  'scripts': ('follow_up', 2),
  'scripts_long': ('returning', 3),
  'switches': ('follow_up', 2),
  'pulses': ('follow_up', 2),
  'scripts_open': ('returning', 3),
}
# What scenes show where a cache is about something.
SCENES = {
  'turns': TURNS,
  'switches': {
    'counts': (0.8, 0.15, 0.05),
    'motions': recipes.MOTIONS,
    'changes': recipes.CHANGES,
  },
  'pulses': {
    'counts': (1.0,),
    'motions': recipes.PULSES,
    'changes': ('motion',),
  },
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  length, _, pixels = (arg or 'short').partition(',')
  pixels = pixels or '64'
  if length not in LENGTHS or not pixels.isdigit():
    raise UserError(
      f"unknown argument '{arg}'; use {', '.join(LENGTHS)}, and a size in "
      'pixels after a comma, e.g. long,128'
    )
  frames, clips = LENGTHS[length]
  script, shots = SCRIPTS.get(length, ('', 3))
  return config_dict.ConfigDict(
    {
      'task': 'latents',
      'vae': 'jaxvid/weights/shapes_vae',
      'target': f'data/latents/{length}_{pixels}',
      'frames': frames,
      'clips': clips,
      'script': script,
      'shots': shots,
      'terse': length == 'scripts_open',
      # Another seed: the long clips show other scenes than the short ones.
      'seed': list(LENGTHS).index(length),
      'scenes': {
        'counts': (0.7, 0.2, 0.1),
        **SCENES.get(length, {}),
        'height': int(pixels),
        'width': int(pixels),
      },
    }
  )
