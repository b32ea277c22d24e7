"""Caches the text encoder's output for the captions of your videos.

  python -m jaxvid.main --config=configs/videos/embeddings.py \
    --config.videos=data/mine/videos/default/1.0.0 \
    --config.weights=Wan2.1-T2V-1.3B --config.target=data/mine/text

Rows of padding are not stored. Stopped or killed, the job goes on with the
texts that are missing; new captions are added. Shards of 256: *ours*.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'embeddings',
      'weights': 'shapes',
      'videos': 'data/mine/videos/default/1.0.0',
      'target': 'data/mine/text',
      'shard': 256,  # *ours*
    }
  )
