"""BlockVid on the shapes world: Block Forcing on clips of several shots.

  python -m jaxvid.main --config=configs/shapes/latents.py:scripts
  python -m jaxvid.main --config=configs/shapes/latents.py:scripts_long
  python -m jaxvid.main --config=configs/shapes/blockvid.py:nano,stage1
  python -m jaxvid.main --config=configs/shapes/blockvid.py:nano,stage2

Goes on from the causal model of `causal.py` (`small`: from that which ships),
first on clips of 5 s in two shots, then on clips of 11 s that return to their
first scene. Every chunk has a prompt of its own. Velocity forcing with a
semantic reference on real clips, the Self-Forcing loss on the model's own
(`--config.block.adversary.every` says how often); noise rises from chunk to
chunk in half of the clips. A third word, `nano,stage2,velocity`, leaves the
Self-Forcing loss out; `small,stage2,open` trains on clips (`latents.py:
scripts_open`) whose captions leave size and background of the scene that comes
back open, so that the bank is worth being read.

The weights that ship as `shapes_blockvid`, in 8 bits, beside the other parts of
the causal model:

  python -m jaxvid.main --config=configs/shapes/latents.py:scripts_open
  python -m jaxvid.main --config=configs/shapes/blockvid.py:small,stage2,open \
    --config.block.weights=jaxvid/weights/shapes/model \
    --config.export_dtype=float32
  python -m jaxvid.main --config=configs/shapes/ship.py:small,blockvid \
    --config.dit=runs/shapes/small/blockvid_stage2_weights \
    --config.target=runs/shapes/small/bundles/blockvid
  python -m jaxvid.main --config=configs/quantize.py --config.base=shapes \
    --config.stream.weights=runs/shapes/small/bundles/blockvid \
    --config.target=outputs/shapes_blockvid

Long takes are 11 s here and not 50 s, which the budget of a CPU rules out.
Values are marked in `jaxvid/training/block_recipes.py`. At size `nano`, on one
CPU core: stage 1 0.4 steps per second, stage 2 0.75; some 13 and 8 minutes;
`small`, stage 2: 0.35, 14 minutes; its clips (`scripts_open`) take 3 to cache.
Expected: `loss` 0.23 in stage 1, 0.25 in stage 2, `gan_accuracy` between 0.5
and 1. Sampling: configs/evaluate/returning.py.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import block_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, stage, variant = [*(arg or 'nano').split(','), '', ''][:3]
  if variant not in ('', 'velocity', 'open'):
    raise UserError(f"no variant '{variant}'; there are 'velocity' and 'open'")
  if variant == 'open' and stage != 'stage2':
    raise UserError("only stage2 has a variant 'open'")
  cache = 'scripts_open' if variant == 'open' else ''
  recipe = block_recipes.shapes_block(size, stage or 'stage1', cache)
  if variant == 'velocity':
    recipe['block']['adversary'] = None
  return config_dict.ConfigDict(recipe)
