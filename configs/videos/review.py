"""Opens a page for an annotator to judge clips, chunks and captions.

  python -m jaxvid.main --config=configs/videos/review.py \
    --config.target=data/mine --config.annotator=anna
  python -m jaxvid.main --config=configs/videos/review.py \
    --config.target=data/mine    # how annotators agree: Cohen's kappa

Two annotators at every stage: *paper* (BlockVid section 4). Running
configs/videos/folder.py again leaves out what they found bad.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {'task': 'review', 'target': 'data/mine', 'annotator': '', 'port': 8420}
  )
