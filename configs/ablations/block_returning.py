"""A minute that returns to its first scene: bank against rolling cache.

  python -m jaxvid.main --config=configs/ablations/block_returning.py
  python -m jaxvid.main --config=configs/ablations/block_returning.py:small
  python -m jaxvid.main --config=configs/ablations/block_returning.py:small,open

60 s in three shots, A, B, A, each of 20 s: when A comes back, every recent
chunk shows B. Arms: the semantic bank, the same where of equal prompts the
later chunk is retrieved, a dynamic sparse and a rolling cache of the same
size, and a rolling one with the first chunk as its sink. All chunks begin from
the same noise, which may bring a scene back by itself; with noise of their own
(`fresh`) the memory alone can. Measured after the return: what the probe reads;
what the caption leaves open and shows as it did before (`remembered`); the
drift of both A shots together. Three seeds. Captions of the shapes world say
nearly all there is to see; with `open` those of A leave size and background
open, that of B says both, and the videos begin with nine true frames: what to
return to, only a memory can know, all the more as every chunk has noise of its
own. The models of `open` were trained on such clips (`latents.py:
scripts_open`); `told` are those of the other variant.

Training takes 40 minutes on one CPU core (`nano`: 13 of stage 1, three times 8
of stage 2; `small`: three times 14 of stage 2); measuring 2 minutes per arm and
seed, of 16 clips, 4 of 32.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm, claim


def get_config(arg: str = '') -> config_dict.ConfigDict:
  rows = {
    'semantic': block.SEMANTIC,
    'rolling': block.ROLLING,
    'semantic_fresh': {**block.SEMANTIC, 'noise.shared': False},
    'rolling_fresh': {**block.ROLLING, 'noise.shared': False},
    'semantic_later': {**block.SEMANTIC, 'bank.alike': 'later'},
    'dynamic': block.DYNAMIC,
    'rolling_sink': {**block.ROLLING, 'sink': 3, 'bank.retrieved': 1},
  }
  pairs = [('semantic', name) for name in ('rolling', 'dynamic')]
  pairs += [('semantic', 'rolling_sink'), ('semantic_fresh', 'rolling_fresh')]
  metrics = ('remembered', 'right', 'colour', 'shape', 'motion')
  size, _, variant = arg.partition(',')
  if variant not in ('', 'open'):
    raise UserError(f"no variant '{variant}'; there is 'open'")
  name, title, more = 'block_returning', 'Returning scenes', []
  arms = [arm(row, block.FULL, rows[row]) for row in rows]
  trained = [block.FULL]
  if variant:
    name, more = f'{name}_open', ['terse=true', 'opening=1']
    title = f'{title}, what captions leave open'
    pairs, trained = pairs[-1:], [block.OPEN, block.FULL]
    arms = [
      arm(f'{row}{suffix}', training, rows[row])
      for suffix, training in (('', block.OPEN), ('_told', block.FULL))
      for row in pairs[0]
    ]
  base = block.base(name, title, size, seconds=60.0)
  return config_dict.ConfigDict(
    {
      **base,
      'evaluate': [*base['evaluate'], *more],
      'clips': 32,  # of a minute each
      'trainings': block.trainings(size, *trained),
      'curves': ['colour', 'shape', 'motion'],
      'arms': arms,
      'claims': [
        *(
          claim(
            f'after the return, {metric}: {better} over {rival}',
            better,
            rival,
            metric,
          )
          for better, rival in pairs
          for metric in metrics
        ),
        *(
          row
          for better, rival in pairs
          for row in block.drift_claims('Both A shots', better, rival)
        ),
      ],
    }
  )
