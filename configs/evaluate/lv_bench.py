"""Video Drift Error (LV-Bench) of any folder of videos.

  python -m jaxvid.main --config=configs/evaluate/lv_bench.py \
    --config.videos=DIR
  python -m jaxvid.main --config=configs/evaluate/lv_bench.py:generate \
    --config.videos=DIR --config.scripts.source=annotations.jsonl

The first scores what is there: five metrics in two forms, as the released
benchmark computes them and as the paper defines them, with light scorers that
need no weights (`--config.scorers.weights=FOLDER` brings the learned ones).
`:generate` makes a video of every script first. Reports go to DIR/lv_bench: a
JSON file per video, summary.json, scores.csv and plots. What the numbers mean,
and how long it takes: docs/lv_bench.md.

10 chunks and linear weights: *released config*. Light scorers and the
threshold of static background: *ours*.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'generate'):
    raise UserError(f"unknown argument '{arg}'; use generate, or nothing")
  config = config_dict.ConfigDict(
    {
      'task': 'lv_bench',
      'videos': '',
      'output': '',
      'chunks': 10,  # *released config*
      'scorers': {'segmenter': 'centre', 'weights': ''},
      'scripts': {'source': '', 'split': 'test', 'count': 0},
    }
  )
  if arg == 'generate':
    config.scripts.stream = {
      **presets.SHAPES['causal'],
      'switch': {'cache': 'keep'},  # *paper*: every chunk has its own prompt
    }
  return config
