"""Makes a data set of long, captioned clips from a folder of your videos.

  python -m jaxvid.main --config=configs/videos/folder.py \
    --config.source=DIR --config.target=data/mine
  python -m jaxvid.main --config=configs/videos/folder.py \
    --config.source=DIR --config.target=data/mine \
    --config.describe.chat.base_url=http://localhost:8000/v1 \
    --config.describe.chat.model=Qwen3-VL-8B

Shots, filters by length, motion and looks, chunks of 81 frames, a caption per
chunk; `data/mine/videos/default/1.0.0` is the data set, `rejected.jsonl` says
what was left out and why. Stopped or killed, the job goes on where it was.
Everything about it: docs/video_data.md.

Chunks of 81 frames, flow at 2 fps, the prompt for captions and aligning them
into a story: *paper* (BlockVid A.3, A.6). All thresholds, the detector of
cuts, the light scorers and the prompt for the story: *ours*.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(
    {
      'task': 'videos',
      'source': 'videos',
      'target': 'data/mine',
      'captions': '',
      'size': (480, 832),
      'clips': {
        'fps': 16,
        'chunk': 81,  # *paper*
        'filter': {
          'min_seconds': 5.0,  # *ours*
          'max_seconds': 60.0,  # *ours*
          'min_motion': 0.004,  # *ours*
          'min_aesthetic': 0.2,  # *ours*
        },
      },
      'describe': {
        'chat': {
          'base_url': 'http://localhost:8000/v1',
          'model': '',
          'api_key_env': '',
        },
      },
    }
  )
