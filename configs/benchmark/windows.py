"""Times windows of 3 to 27 latents and S3W9: what figure 7 of LongLive costs.

  python -m jaxvid.main --config=configs/benchmark/windows.py
  python -m jaxvid.main --config=configs/benchmark/windows.py:wan_1_3b

Random weights of one size, clips of 10 s, 4 ticks and a clean one per chunk.
Each memory against that of 21 latents: the paper says 28 % less time and 17 %
less memory with S3W9 (ratio 1.39). What a memory weighs is known exactly:
latents held x layers x 2 x tokens x width x bytes. Size `small` takes 77 s
on two CPU cores. Not measured on a GPU.
"""

from ml_collections import config_dict

WINDOWS = (3, 6, 9, 12, 15, 18, 21, 24, 27)


def get_config(arg: str = '') -> config_dict.ConfigDict:
  memories = {f'w{window}': (0, window) for window in WINDOWS}
  memories['s3w9'] = (3, 9)
  return config_dict.ConfigDict(
    {
      'task': 'compare',
      'systems': [
        {
          'name': name,
          'stream': {
            'schedule': 'self_forcing',
            'commit': 'clean',
            'decoder': 'vae',
            'positions': 'relative',
            'sink': sink,
            'window': window,
          },
        }
        for name, (sink, window) in memories.items()
      ],
      'ratios': [
        {
          'slow': 'w21',
          'fast': name,
          'published': '1.39' if name == 's3w9' else '',
          'target': 0.0,
        }
        for name in memories
        if name != 'w21'
      ],
      'random': arg or 'small',
      'seconds': 10.0,
      'repeats': 5,
      'output': '',
    }
  )
