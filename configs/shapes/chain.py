"""Everything from a teacher to a measured few-step student, in one command.

  python -m jaxvid.main --config=configs/shapes/chain.py:small
  python -m jaxvid.main --config=configs/shapes/chain.py:small,causvid,chunks
  python -m jaxvid.main --config=configs/shapes/chain.py:nano,self_forcing
  python -m jaxvid.main --config=configs/shapes/chain.py:small \
    --config.start=ode
  python -m jaxvid.main --config=configs/shapes/chain.py:small \
    --config.explain

Caches latents, trains the teacher in three stages, the causal model in three
and, from that, the teacher of whole clips, makes ODE pairs, initialises the
student, distils it (`diagdistill`, `self_forcing` or `causvid`), makes a
bundle of it and measures that with the probe. With `chunks` students learn
from the causal model alone, chunk by chunk: no pairs of whole clips and no
teacher of them. At size `nano` it is always so, and the causal model begins
from nothing (`causal.py`). Stopped or killed, the same command goes on where it
was; finished stages are skipped.
The report is `runs/shapes/<size>/<recipe>_report.json`.
Its runtime has not been measured.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import shapes

# Recipe -> how its student is sampled.
RECIPES = {
  'diagdistill': ('4322222', 'last', 3, 9, 'relative'),
  'self_forcing': ('self_forcing', 'clean', 0, 21, 'absolute'),
  'causvid': ('causvid', 'clean', 0, 21, 'absolute'),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, recipe, scored, *_ = f'{arg or "small"},,'.split(',')
  recipe = recipe or 'diagdistill'
  shapes.sizes(size)
  if recipe not in RECIPES:
    raise UserError(f"no recipe '{recipe}'; there are {', '.join(RECIPES)}")
  if scored not in ('', 'chunks'):
    raise UserError(f"no variant '{scored}'; there is 'chunks'")
  if scored or size == 'nano':
    return _by_chunks(size, recipe)
  side, runs = shapes.PIXELS[size], f'runs/shapes/{size}'
  init = ',causvid' if recipe == 'causvid' else ''
  ode = f'{runs}/ode{init.replace(",", "_")}'
  pairs = f'data/pairs/{init[1:] or "teacher"}_{size}'
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'{runs}/chain_{recipe}',
      'stages': [
        _stage('latents_short', f'latents.py:short,{side}'),
        _stage('latents_long', f'latents.py:long,{side}'),
        _stage('latents_turns', f'latents.py:turns,{side}'),
        _stage('latents_scripts', f'latents.py:scripts,{side}'),
        *(_teacher(size, stage) for stage in ('short', 'forced', 'refined')),
        *_causal(size),
        _teacher(size, 'long'),
        _stage('ode_pairs', f'ode_pairs.py:{size}{init}', pairs),
        _stage('ode', f'ode.py:{size}{init}', f'{ode}_run'),
        {
          **_stage(recipe, f'{recipe}.py:{size}', f'{runs}/{recipe}'),
          'overrides': [f'distill.weights.student={ode}'],
        },
        _stage('ship', f'ship.py:{size},{recipe}'),
        _evaluation(size, recipe),
      ],
    }
  )


def _by_chunks(size: str, recipe: str) -> config_dict.ConfigDict:
  side, runs = shapes.PIXELS[size], f'runs/shapes/{size}'
  nothing = size == 'nano'  # What the causal model begins with.
  stages = ('short', 'forced', 'refined')
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'{runs}/chain_{recipe}_chunks',
      'stages': [
        *(
          ()
          if nothing
          else (_stage('latents_short', f'latents.py:short,{side}'),)
        ),
        _stage('latents_long', f'latents.py:long,{side}'),
        _stage('latents_turns', f'latents.py:turns,{side}'),
        _stage('latents_scripts', f'latents.py:scripts,{side}'),
        *(() if nothing else (_teacher(size, stage) for stage in stages)),
        *_causal(size),
        _stage(
          'ode_pairs',
          f'ode_pairs.py:{size},causal',
          f'data/pairs/causal_{size}',
        ),
        _stage('ode', f'ode.py:{size},causal', f'{runs}/ode_causal_run'),
        {
          **_stage(
            recipe, f'{recipe}.py:{size},chunks', f'{runs}/{recipe}_chunks'
          ),
          'overrides': [f'export={shapes.exported(f"shapes_{recipe}", size)}'],
        },
        _stage('ship', f'ship.py:{size},{recipe}'),
        _evaluation(size, recipe, (3, 9, 'relative')),
      ],
    }
  )


def _causal(size: str) -> list[dict]:
  runs = f'runs/shapes/{size}'
  return [
    _stage('causal_first', f'causal.py:{size},first', f'{runs}/causal_first'),
    _stage('causal_long', f'causal.py:{size},long', f'{runs}/causal_long'),
    _stage('causal', f'causal.py:{size}', f'{runs}/causal_teacher'),
  ]


def _stage(name: str, config: str, *outputs: str) -> dict:
  return {
    'name': name,
    'config': f'configs/shapes/{config}',
    'outputs': outputs,
  }


def _teacher(size: str, stage: str) -> dict:
  name = f'teacher_{stage}'
  return _stage(
    name, f'teacher.py:{size},{stage}', f'runs/shapes/{size}/{name}'
  )


def _evaluation(size: str, recipe: str, memory: tuple = ()) -> dict:
  """1,024 held-out captions, sampled as the student was trained."""
  schedule, commit, *own = RECIPES[recipe]
  sink, window, positions = memory or own
  bundle = f'runs/shapes/{size}/bundles/{recipe}'
  settings = {
    'stream.weights': f'shapes_{recipe}' if size == 'small' else bundle,
    'stream.schedule': schedule,
    'stream.commit': commit,
    'stream.guidance': 1.0,
    'stream.sink': sink,
    'stream.window': window,
    'stream.positions': positions,
    'output': f'runs/shapes/{size}/{recipe}_report.json',
  }
  return {
    'name': 'evaluate',
    'config': 'configs/evaluate/shapes.py',
    'overrides': [f'{key}={value}' for key, value in settings.items()],
  }
