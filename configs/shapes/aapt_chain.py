"""AAPT on the shapes world, from a causal model to a measured generator.

  python -m jaxvid.main --config=configs/shapes/aapt_chain.py:small
  python -m jaxvid.main --config=configs/shapes/aapt_chain.py:nano,low
  python -m jaxvid.main --config=configs/shapes/aapt_chain.py:small \
    --config.explain

Goes on from the causal model that ships; other sizes need that of `causal.py`
(`chain.py:nano` with `--config.stop=causal`). Adaptation, consistency,
adversarial training, long videos, a bundle, 1,024 held-out captions that start
from a true first frame. `low` trains on the low size alone. Finished stages are
skipped. The report is `runs/shapes/<size>/aapt_report.json`. `small,low`
takes 68 minutes on one CPU core before the evaluation (12, 6, 25, 13 and 12)
and makes the weights that ship.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in ('', 'low'):
    raise UserError(f"no variant '{variant}'; there is 'low'")
  side, runs = shapes.PIXELS[size], f'runs/shapes/{size}'
  trainings = {
    'adapt': f'aapt_adapt.py:{size}{",low" if variant else ""}',
    'consistency': f'aapt_consistency.py:{size}',
    'adversarial': f'aapt_adversarial.py:{size}',
    'long1': f'aapt_long.py:{size},1',
    'long5': f'aapt_long.py:{size},5',
  }
  larger = {
    **_stage('latents_larger', f'latents.py:long,{2 * side}'),
    'overrides': ['clips=512'],
  }
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'{runs}/chain_aapt',
      'stages': [
        _stage('latents', f'latents.py:long,{side}'),
        _stage('latents_turns', f'latents.py:turns,{side}'),
        *([] if variant else [larger]),
        *(
          _stage(name, config, f'{runs}/aapt_{name}')
          for name, config in trainings.items()
        ),
        _stage('ship', f'ship.py:{size},aapt'),
        _evaluation(size),
      ],
    }
  )


def _stage(name: str, config: str, *outputs: str) -> dict:
  return {
    'name': name,
    'config': f'configs/shapes/{config}',
    'outputs': outputs,
  }


def _evaluation(size: str) -> dict:
  return {
    'name': 'evaluate',
    'config': 'configs/evaluate/shapes.py:aapt',
    'overrides': [
      f'stream.weights={shapes.bundle("aapt", size)}',
      f'output=runs/shapes/{size}/aapt_report.json',
    ],
    'outputs': [f'runs/shapes/{size}/aapt_report.json'],
  }
