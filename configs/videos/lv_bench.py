"""Builds a data set of LV-Bench's annotations, split 8:2 by a seed.

  python -m jaxvid.main --config=configs/videos/lv_bench.py \
    --config.source=annotations.jsonl

Prints the folder, which configs/evaluate/lv_bench.py:generate takes as
`--config.scripts.source`. Videos are not copied. What annotations look like:
docs/lv_bench.md. 8:2 at random: *paper*; the seed: *ours*.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'annotations',
      'source': 'annotations.jsonl',
      'folder': 'data',
      'name': 'default',
      'seed': 0,
    }
  )
