"""What BlockVid leaves open, swept: gamma, eps_min, the share of rising noise.

  python -m jaxvid.main --config=configs/ablations/block_gamma.py

Stage 2 from the same stage 1 with another gamma (0 to 0.5 and, as equation 3
prints, `literal` with 1), another eps_min, another steepness of the sigmoid.
One seed. Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm

LONG = 'configs/shapes/blockvid.py:{size},stage2'
SWEEPS = {
  'gamma_0_05': ('block.velocity.gamma=0.05',),
  'gamma_0_25': ('block.velocity.gamma=0.25',),
  'gamma_0_5': ('block.velocity.gamma=0.5',),
  'literal_1': ('block.velocity.gamma=1.0', 'block.velocity.form=literal'),
  'eps_min_0_05': ('block.rising.low=0.05',),
  'eps_min_0_5': ('block.rising.low=0.5',),
  'sigmoid_5': ('block.rising.curve=sigmoid', 'block.rising.alpha=5.0'),
  'sigmoid_20': ('block.rising.curve=sigmoid', 'block.rising.alpha=20.0'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size = arg or 'nano'
  start = f'block.weights=runs/ablations/{size}/{block.STAGE_1}_s0/weights'
  known = ('block_self', 'block_sigmoid', block.FULL)
  trainings = block.trainings(arg, *known, seeds=(0,))
  trainings += [
    {
      'name': f'block_{name}',
      'config': LONG.format(size=size),
      'overrides': [*overrides, start],
      'seeds': [0],
      'optional': name == 'literal_1',
    }
    for name, overrides in SWEEPS.items()
  ]
  names = {'gamma_0': 'block_self', 'defaults': block.FULL}
  names |= {'sigmoid_10': 'block_sigmoid'}
  names |= {name: f'block_{name}' for name in SWEEPS}
  return config_dict.ConfigDict(
    {
      **block.base('block_gamma', 'What the paper leaves open', arg),
      'trainings': trainings,
      'arms': [
        arm(name, training, block.SEMANTIC) for name, training in names.items()
      ],
    }
  )
