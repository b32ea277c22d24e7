"""Times DiagDistill, Self-Forcing and their teacher on clips of 5 s.

  python -m jaxvid.main --config=configs/benchmark/distillation.py
  python -m jaxvid.main --config=configs/benchmark/distillation.py:small \
    --config.output=benchmarks/results/distillation_cpu.json
  python -m jaxvid.main --config=configs/benchmark/distillation.py:wan_1_3b
  python -m jaxvid.main --config=configs/benchmark/distillation.py:shipped

Random weights of the size that ships (`small`) or of another (nano, base,
wan_1_3b, wan_14b): how fast a network is does not depend on what it learned.
`shipped` takes the bundles themselves. One run times all of it: 4322222 with
its last tick in memory; 4 ticks and a clean pass, in Self-Forcing's memory
of a whole clip and in DiagDistill's; 50 guided steps for the whole clip at
once. Ticks alone and frames on the host, with ratios.

Wanted of the ticks alone: 1.5 times faster than 4 ticks and a clean pass, 25
times faster than the teacher. The paper's own ratios differ with the text:
31.0 to 17.0 frames/s is 1.82, its total speedups give 1.86, Figure 1 says
1.88 and section 4.2 says 1.53; 277.3 is the ratio to the teacher's first
frame, 31.0 to 0.78 frames/s is 39.7.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets

FOUR = {
  'weights': 'shapes_self_forcing',
  'decoder': 'vae',
  'schedule': 'self_forcing',
  'commit': 'clean',
  'sink': 0,
  'window': 21,
}


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size = arg or 'small'
  short = {'sink': 3, 'window': 9, 'positions': 'relative'}
  systems = {
    'diagdistill': presets.DIAGDISTILL,
    'four_clean': FOUR,
    'four_clean_short_memory': {**FOUR, **short},
    'teacher': presets.TEACHER,
  }
  published = '1.82 (frames/s), 1.53 (section 4.2), 1.88 (Figure 1)'
  teacher = '39.7 (frames/s), 277.3 (first frame)'
  return config_dict.ConfigDict(
    {
      'task': 'compare',
      'systems': [
        {'name': name, 'stream': stream} for name, stream in systems.items()
      ],
      'ratios': [
        _ratio('four_clean', published, 1.5),
        _ratio('four_clean_short_memory', '', 1.5),
        _ratio('teacher', teacher, 25.0),
      ],
      'random': '' if size == 'shipped' else size,
      'seconds': 5.0,
      'repeats': 5,
      'output': '',
    }
  )


def _ratio(slow: str, published: str, target: float) -> dict:
  return {
    'slow': slow,
    'fast': 'diagdistill',
    'published': published,
    'target': target,
  }
