"""Makes the tokenizer of the shapes world from its captions.

  python -m jaxvid.main --config=configs/shapes/tokenizer.py

About 15 s on one core; writes `jaxvid/weights/shapes_tokenizer/`, about 100
tokens (`spiece.model`, 2 kB). The result is the same at every run.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {'task': 'tokenizer', 'target': 'jaxvid/weights/shapes_tokenizer'}
  )
