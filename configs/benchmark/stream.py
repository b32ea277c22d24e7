"""Times streams: the shipped model's, or any published system's at full size.

  python -m jaxvid.main --config=configs/benchmark/stream.py
  python -m jaxvid.main --config=configs/benchmark/stream.py \
    --config.output=benchmarks/results/stream_cpu.json

The shipped shapes student at 10 s and at 120 s of video, three fresh processes
for each length. Expected on 2 cores (the target of the design, see
docs/model_card.md for measured figures): at least 16 frames/s on the host,
first frame below 1 s, nothing compiled twice, and the same memory while
streaming at both lengths. `stream.py:causal` times the model before
distillation, `stream.py:aapt` the generator of one evaluation per latent frame
(docs/aapt.md), frame by frame.

  python -m jaxvid.main --config=configs/benchmark/stream.py:diagdistill
  python -m jaxvid.main --config=configs/benchmark/stream.py:longlive
  python -m jaxvid.main --config=configs/benchmark/stream.py:self_forcing
  python -m jaxvid.main --config=configs/benchmark/stream.py:one_step
  python -m jaxvid.main --config=configs/benchmark/stream.py:one_step,8b
  python -m jaxvid.main --config=configs/benchmark/stream.py:waterfall
  python -m jaxvid.main --config=configs/benchmark/stream.py:diagdistill \
    --config.soak=600 --config.output=benchmarks/results/diagdistill.json

The stream of a system with random weights of Wan2.1 1.3B at 832x480 (or of
another size: tiny, small, 1.3b, 8b, 14b): steady frames on the host, ticks
alone, first frame, clip time, rhythm, switch of the prompt, start-up, memory,
each beside its limit and its prediction. `waterfall` goes from Self-Forcing to
DiagDistill, one change at a time. For a GPU: about a minute each is expected
there, not measured on a GPU. On a CPU add
`,small --config.height=192 --config.width=256 --config.chunks=4`.
"""

from ml_collections import config_dict

from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  system, _, size = arg.partition(',')
  if system not in ('', 'causal', 'aapt'):
    return config_dict.ConfigDict(
      {
        'task': 'speed',
        'systems': (system,),
        'size': size or '1.3b',
        'chunks': 50,
        'soak': 0.0,
        'output': '',
      }
    )
  prompt = 'a big red circle moves right slowly'
  return config_dict.ConfigDict(
    {
      'task': 'benchmark',
      'stream': {
        'prompt': prompt,
        **presets.SHAPES[system or 'diagdistill'],
      },
      'lengths': (10.0, 120.0),
      'repeats': 3,
      'output': '',
    }
  )
