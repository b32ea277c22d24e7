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
from jaxvid.training import recipes, shapes

# Recipe -> how its student is sampled.
WHOLE_CLIP = {'sink': 0, 'window': 21, 'positions': 'absolute'}
RECIPES = {
  'diagdistill': ('4322222', 'last', recipes.SHORT_MEMORY),
  'self_forcing': ('self_forcing', 'clean', WHOLE_CLIP),
  'causvid': ('causvid', 'clean', WHOLE_CLIP),
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, recipe, scored = (*(arg or 'small').split(',', 2), '', '')[:3]
  recipe = recipe or 'diagdistill'
  shapes.sizes(size)
  if recipe not in RECIPES:
    raise UserError(f"no recipe '{recipe}'; there are {', '.join(RECIPES)}")
  if scored not in ('', 'chunks'):
    raise UserError(f"no variant '{scored}'; there is 'chunks'")
  chunks = bool(scored) or size in shapes.CAUSAL_ONLY
  last = _by_chunks(size, recipe) if chunks else _whole(size, recipe)
  suffix = '_chunks' if chunks else ''
  return config_dict.ConfigDict(
    {
      'task': 'chain',
      'workdir': f'runs/shapes/{size}/chain_{recipe}{suffix}',
      'stages': [*_models(size), *last],
    }
  )


def _models(size: str) -> list[dict]:
  """Cached latents and, from those, the causal model."""
  side = shapes.PIXELS[size]
  short, teachers = [], []
  if size not in shapes.CAUSAL_ONLY:
    short = ['short']
    teachers = [_teacher(size, s) for s in ('short', 'forced', 'refined')]
  return [
    *(
      _stage(f'latents_{length}', f'latents.py:{length},{side}')
      for length in (*short, 'long', 'turns', 'scripts')
    ),
    *teachers,
    *_causal(size),
  ]


def _whole(size: str, recipe: str) -> list[dict]:
  """A student of a teacher of whole clips."""
  runs, init = f'runs/shapes/{size}', ''
  if recipe == 'causvid':
    init = 'causvid'
  ode = '_'.join(filter(None, (f'{runs}/ode', init)))
  arg = ','.join(filter(None, (size, init)))
  pairs = f'data/pairs/{init or "teacher"}_{size}'
  return [
    _teacher(size, 'long'),
    _stage('ode_pairs', f'ode_pairs.py:{arg}', pairs),
    _stage('ode', f'ode.py:{arg}', f'{ode}_run'),
    {
      **_stage(recipe, f'{recipe}.py:{size}', f'{runs}/{recipe}'),
      'overrides': [f'distill.weights.student={ode}'],
    },
    _stage('ship', f'ship.py:{size},{recipe}'),
    _evaluation(size, recipe),
  ]


def _by_chunks(size: str, recipe: str) -> list[dict]:
  """A student of the causal model."""
  runs, name = f'runs/shapes/{size}', f'{recipe}_chunks'
  pairs = f'data/pairs/causal_{size}'
  export = shapes.exported(f'shapes_{recipe}', size)
  return [
    _stage('ode_pairs', f'ode_pairs.py:{size},causal', pairs),
    _stage('ode', f'ode.py:{size},causal', f'{runs}/ode_causal_run'),
    {
      **_stage(recipe, f'{recipe}.py:{size},chunks', f'{runs}/{name}'),
      'overrides': [f'export={export}'],
    },
    _stage('ship', f'ship.py:{size},{recipe}'),
    _evaluation(size, recipe, recipes.SHORT_MEMORY),
  ]


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


def _evaluation(size: str, recipe: str, memory: dict | None = None) -> dict:
  """1,024 held-out captions, sampled as the student was trained."""
  schedule, commit, own = RECIPES[recipe]
  settings = {
    'stream.weights': shapes.bundle(recipe, size),
    'stream.schedule': schedule,
    'stream.commit': commit,
    'stream.guidance': 1.0,
    **{f'stream.{key}': value for key, value in (memory or own).items()},
    'output': f'runs/shapes/{size}/{recipe}_report.json',
  }
  return {
    'name': 'evaluate',
    'config': 'configs/evaluate/shapes.py',
    'overrides': [f'{key}={value}' for key, value in settings.items()],
  }
