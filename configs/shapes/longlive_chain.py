"""LongLive's two stages and what they give, in one command.

  python -m jaxvid.main --config=configs/shapes/longlive_chain.py:small
  python -m jaxvid.main --config=configs/shapes/longlive_chain.py:small,240

Trains stage 1 and streaming long tuning of 60 s (or 240 s), makes a bundle of
the student, and measures streams of 240 s before and after long tuning and
512 changes of the caption. Begins with the student that
`configs/shapes/chain.py:small` with `--config.stop=ode` leaves. Stopped or
killed, the same command goes on. Reports are
`runs/shapes/<size>/longlive_*_report.json`. Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, seconds = (arg or 'small').partition(',')
  if seconds not in ('', '60', '240'):
    raise UserError(f"no length '{seconds}'; there are 60 and 240")
  shapes.sizes(size)
  name = 'longlive_240' if seconds == '240' else 'longlive'
  runs = f'runs/shapes/{size}'
  bundle = f'{runs}/bundles/{name}' if size != 'small' else f'shapes_{name}'
  before = {
    'stream.weights': f'{runs}/longlive_init_weights',
    'parts.tokenizer': shapes.TOKENIZER,
    'parts.decoder': shapes.VAE,
  }
  variant = f',{seconds}' if seconds else ''
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'{runs}/chain_{name}',
      'stages': [
        {
          'name': 'init',
          'config': f'configs/shapes/longlive_init.py:{size}',
          'outputs': [f'{runs}/longlive_init'],
        },
        {
          'name': 'long',
          'config': f'configs/shapes/longlive_long.py:{size}{variant}',
          'outputs': [f'{runs}/{name}'],
        },
        {'name': 'ship', 'config': f'configs/shapes/ship.py:{size},{name}'},
        _measured('long', {'stream.weights': bundle}, f'{runs}/{name}_long'),
        _measured(
          'switch', {'stream.weights': bundle}, f'{runs}/{name}_switch'
        ),
        _measured('long', before, f'{runs}/longlive_init_long', '_before'),
      ],
    }
  )


def _measured(what: str, settings: dict, output: str, suffix: str = '') -> dict:
  ticks = {'stream.schedule': 'self_forcing', 'stream.commit': 'clean'}
  settings = {**settings, **ticks, 'output': f'{output}_report.json'}
  return {
    'name': f'measure_{what}{suffix}',
    'config': f'configs/evaluate/longlive.py:{what}',
    'overrides': [f'{key}={value}' for key, value in settings.items()],
    'needs': ('init',) if suffix else ('ship',),
  }
