"""BlockVid: a minute from time-stamped captions, with a semantic memory.

  python -m jaxvid.main --config=configs/wan/blockvid.py \
    --config.weights=SkyReels-V2-DF-1.3B-540P \
    --config.switch.script=configs/scripts/blockvid_swan.jsonl

Block diffusion: 50 Euler ticks with guidance per chunk of 9 latents, two
recent chunks and the two whose prompts are most like the current one, sparse
(tau 0.98), shared noise shuffled where chunks meet. `weights` is the published
folder of SkyReels-V2-DF-1.3B, or of what `blockvid_stage2.py` trained from
it; no weights of BlockVid are public. `--config.first_frame=picture.png`
starts from a picture, `blockvid.py:restart` begins every chunk with the frame
that the one before it ended on, as the paper's chunks of 1 + T frames do.

The captions of appendices A.7 and A.8 are `configs/scripts/blockvid_*.jsonl`.
848x480, 16 frames per second. Not measured on a GPU.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets
from jaxvid.training import block_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'restart'):
    raise UserError(f"no variant {arg!r}; there is 'restart'")
  return config_dict.ConfigDict(
    {
      **presets.WAN_STREAM,
      'weights': 'SkyReels-V2-DF-1.3B-540P',
      'negative_prompt': presets.WAN_NEGATIVE,
      'seconds': 60.0,
      'width': 848,  # *paper*: 854, cropped
      'schedule': 'euler',
      'steps': 50,  # SkyReels-V2's README
      'shift': 8.0,  # SkyReels-V2
      'guidance': 6.0,  # SkyReels-V2
      'chunk': block_recipes.WAN_CHUNK,
      # *paper*: two recent chunks, and the current one.
      'window': 3 * block_recipes.WAN_CHUNK,
      # *ours*: of 16 chunks, keys and values would take too much of a GPU.
      'bank': {**block_recipes.BANK, 'capacity': 6},
      'noise': {'shuffle': 4, 'shared': True},  # *paper*
      'switch': {'cache': 'keep'},  # *paper*: nothing is computed again
      'restart': bool(arg),
    }
  )
