"""Caches the latents of your videos for training.

  python -m jaxvid.main --config=configs/videos/latents.py \
    --config.videos=data/mine/videos/default/1.0.0 \
    --config.vae=Wan2.1-T2V-1.3B --config.target=data/mine/latents

Windows of 81 frames, each from the start of a chunk, with that chunk's
caption; longer ones (`--config.frames=241`) hold several chunks, whose
captions stay beside them. Stopped or killed, the job goes on with the next
shard. 81 frames: *paper* (BlockVid A.6); the rest: *ours*.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'latents',
      'videos': 'data/mine/videos/default/1.0.0',
      'vae': 'jaxvid/weights/shapes_vae',
      'target': 'data/mine/latents',
      'frames': 81,  # *paper*
      'clips': 1_000_000,
      'shard': 64,  # *ours*
      'batch': 1,
    }
  )
