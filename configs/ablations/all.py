"""All ablations of DiagDistill, one after the other; 25 trainings in all.

  python -m jaxvid.main --config=configs/ablations/all.py --config.explain
  python -m jaxvid.main --config=configs/ablations/all.py

What they share is trained and measured once. Needs the models that students
of this size begin with: `configs/shapes/chain.py:nano` with
`--config.stop=ode`. The reports are `runs/ablations/nano/reports/*.md`; stopped
or killed, the same command goes on. A training takes 5 to 7 minutes on one CPU
core, a measurement of 256 clips about two; not timed as a whole.
"""

from ml_collections import config_dict

NAMES = (
  'components', 'allocations', 'context', 'motion', 'windows', 'chunks',
  'features', 'weights', 'histories', 'long',
)  # fmt: skip


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size = arg or 'nano'
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'runs/ablations/{size}/all',
      'stages': [
        {
          'name': name,
          'config': f'configs/ablations/{name}.py:{size}',
          'needs': (),
        }
        for name in NAMES
      ],
    }
  )
