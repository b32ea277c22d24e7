"""LongLive's two stages and what they give, in one command.

  python -m jaxvid.main --config=configs/shapes/longlive_chain.py:small
  python -m jaxvid.main --config=configs/shapes/longlive_chain.py:small,240
  python -m jaxvid.main --config=configs/shapes/longlive_chain.py:small,chunks

Trains stage 1 and streaming long tuning of 60 s (or 240 s), makes a bundle of
the student, and measures streams of 240 s before and after long tuning and
512 changes of the caption. Begins with the student that
`configs/shapes/chain.py:small` with `--config.stop=ode` leaves.

`chunks` tunes the DiagDistill student instead: the causal model learns more
changes of the caption and teaches it, twice (at size `nano` the one that ships
does, as it is, once). Stopped or killed, the same command goes on. Reports are
`runs/shapes/<size>/longlive_*_report.json`. Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

VARIANTS = ('', '60', '240', 'chunks')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in VARIANTS:
    names = ', '.join(VARIANTS[1:])
    raise UserError(f"no variant '{variant}'; there are {names}")
  shapes.sizes(size)
  chunks = variant == 'chunks'
  twice = chunks and size not in shapes.CAUSAL_ONLY
  name = 'longlive_240' if variant == '240' else 'longlive'
  runs = f'runs/shapes/{size}'
  run = f'{runs}/longlive_chunks' if chunks else f'{runs}/{name}'
  target = shapes.exported(f'shapes_{name}', size)
  if chunks:
    before = {'stream.weights': shapes.bundle('diagdistill', size)}
    ticks = {}
  else:
    before = {
      'stream.weights': f'{runs}/longlive_init_weights',
      'parts.tokenizer': shapes.TOKENIZER,
      'parts.decoder': shapes.VAE,
    }
    ticks = {'stream.schedule': 'self_forcing', 'stream.commit': 'clean'}
  after = {'stream.weights': shapes.bundle(name, size), **ticks}
  before |= ticks
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'{runs}/chain_{name}' + ('_chunks' if chunks else ''),
      'stages': [
        *(_teacher(size) if chunks else _stage_one(size)),
        _tuned(size, 'long', variant, run, '' if twice else target),
        *(
          [
            _tuned(size, 'more', 'pulses', f'{runs}/longlive_pulses', ''),
            _tuned(size, 'again', 'again', f'{runs}/longlive_again', target),
          ]
          if twice
          else []
        ),
        {'name': 'ship', 'config': f'configs/shapes/ship.py:{size},{name}'},
        *_measured('', after, run, ('ship',)),
        *_measured('_before', before, run, () if chunks else ('init',)),
      ],
    }
  )


def _stage_one(size: str) -> list[dict]:
  return [
    {
      'name': 'init',
      'config': f'configs/shapes/longlive_init.py:{size}',
      'outputs': [f'runs/shapes/{size}/longlive_init'],
    }
  ]


def _tuned(size: str, name: str, variant: str, run: str, target: str) -> dict:
  """One stage of long tuning; without a target its weights go where it says."""
  return {
    'name': name,
    'config': f'configs/shapes/longlive_long.py:{size},{variant}',
    'outputs': [run],
    'overrides': [f'export={target}'] if target else [],
  }


def _teacher(size: str) -> list[dict]:
  if size in shapes.CAUSAL_ONLY:
    return []
  side = shapes.PIXELS[size]
  return [
    *(
      {
        'name': f'latents_{name}',
        'config': f'configs/shapes/latents.py:{name},{side}',
      }
      for name in ('long', 'turns', 'scripts', 'switches', 'pulses')
    ),
    *(
      {
        'name': stage,
        'config': f'configs/shapes/causal.py:{size},{name}',
        'outputs': [f'runs/shapes/{size}/causal_{name}'],
      }
      for stage, name in (('init', 'switches'), ('pulses', 'pulses'))
    ),
  ]


def _measured(name: str, stream: dict, run: str, needs: tuple) -> list[dict]:
  """Streams of 240 s, and changes of the caption."""
  return [
    {
      'name': f'measure_{what}{name}',
      'config': f'configs/evaluate/longlive.py:{what}',
      'overrides': [
        *(f'{key}={value}' for key, value in stream.items()),
        f'output={run}{name}_{what}_report.json',
      ],
      'needs': needs,
    }
    for what in ('long', 'switch')
  ]
