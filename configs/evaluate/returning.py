"""Measures streams of several shots that return to their first scene.

  python -m jaxvid.main --config=configs/evaluate/returning.py \
    --config.stream.weights=runs/shapes/nano/blockvid_stage2_weights
  python -m jaxvid.main --config=configs/evaluate/returning.py:follow_up

60 s in three shots, A, B and A again (`follow_up`: three shots, each changes
one thing), a prompt per chunk. The probe reads the last shot against its
caption; `remembered` is what the caption leaves open (size, background) and
shows as it did in the first shot; Video Drift Error, in both forms, is that of
the first and the last shot, one after the other. With `terse=True` the caption
of A leaves size and background open; `opening=1` begins with nine true frames.
The memory is BlockVid's; `stream.bank.retrieval`, `tau` and `retrieved` make it
a rolling or a dynamic sparse one. 16 clips take 2 minutes on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets
from jaxvid.training import shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      'task': 'evaluate',
      'stream': {
        **presets.BLOCKVID,
        'weights': 'runs/shapes/nano/blockvid_stage2_weights',
        'steps': 16,
        'seconds': 60.0,
        'noise': {'shuffle': 4, 'shared': True},
      },
      'parts': {
        'tokenizer': shapes.TOKENIZER,
        'decoder': shapes.VAE,
        'size': (64, 64),
      },
      'script': arg or 'returning',
      'clips': 128,
      'objects': 1,
      'batch': 16,
      'seed': 0,
      'output': '',
    }
  )
