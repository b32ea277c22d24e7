"""Times the shipped model's stream at 10 s and at 120 s of video.

  python -m jaxvid.main --config=configs/benchmark/stream.py
  python -m jaxvid.main --config=configs/benchmark/stream.py \
    --config.output=benchmarks/results/stream_cpu.json

Three fresh processes for each length. Expected on 2 cores (the target of the
design, see docs/model_card.md for measured figures): at least 16 frames/s on
the host, first frame below 1 s, nothing compiled twice, and the same memory
while streaming at both lengths.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets


def get_config() -> config_dict.ConfigDict:
  prompt = 'a big red circle moves right slowly'
  return config_dict.ConfigDict(
    {
      'task': 'benchmark',
      'stream': {'prompt': prompt, **presets.CAUSAL},
      'lengths': (10.0, 120.0),
      'repeats': 3,
      'output': '',
    }
  )
