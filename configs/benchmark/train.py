"""Times a training step with random weights: step, tokens/s, memory.

  python -m jaxvid.main --config=configs/benchmark/train.py
  python -m jaxvid.main --config=configs/benchmark/train.py:14b
  python -m jaxvid.main --config=configs/benchmark/train.py:small \
    --config.height=128 --config.width=192 --config.frames=3

Flow matching of a clip of 81 frames at 832x480 in one pass, AdamW, layers
recomputed in the backward pass. Not measured on a GPU.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      'task': 'train_speed',
      'size': arg or '1.3b',
      'batch': 1,
      'frames': 21,
      'steps': 5,
      'output': '',
    }
  )
