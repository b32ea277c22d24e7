"""DiagDistill: 4, 3, then 2 ticks per chunk, and none to clean up.

  python -m jaxvid.main --config=configs/wan/diagdistill.py \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.checkpoint=models/longlive_base.pt \
    --config.lora=models/lora.pt --config.prompt="a cat walks on grass"

`weights` is the published folder of Wan2.1-T2V-1.3B. DiagDistill has released
no weights of its own: its configuration samples LongLive's, given here as
`checkpoint` and `lora`. `diagdistill.py:paper` takes the schedule and window
of the paper (4322222 by rule, S0W12) instead of the release's (rounded time
steps, S3W9). `--config.explain` prints the ticks. Not measured on a GPU.

The memory keeps the last denoising tick (t = 357), so the context is noisy.
Settings: DiagDistill sections 3.2 and 4, and its release
(`configs/diadistill_inference.yaml`, `pipeline/causal_inference.py`); it
decodes with the tiny autoencoder, `taew2_1.pth`.

  python -m jaxvid.main --config=configs/wan/diagdistill.py:train
  python -m jaxvid.main --config=configs/wan/diagdistill.py:train,release

trains it: distribution matching of latents and of their differences, with
regressions (eq. 12), against Wan2.1 14B. Needs the weights of
`configs/wan/ode.py`, the prompts of `configs/prompts.py` and converted weights
(`configs/convert.py`) below `models/`. The regressions aim at what the student
made before training, with 4 ticks per chunk (any causal generator may take its
place: `--config.distill.weights.causal=...`). `release` takes the released
configs' terms, whose regression aims at x - DMD gradient; `train,frame` makes
chunks of 1 latent (table 7), `train,digits` one student for every digit string.
"""

import dataclasses

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.objectives import flow_distribution
from jaxvid.tasks import presets
from jaxvid.training import recipes

TRAINED = ('', 'release', 'frame', 'digits')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  kind, _, variant = arg.partition(',')
  if kind == 'train' and variant in TRAINED:
    return training(variant)
  if arg not in ('', 'paper'):
    raise UserError(
      f"no variant {arg!r}; there are 'paper', 'train' and 'train,' before "
      + ', '.join(TRAINED[1:])
    )
  sink, window = (0, 12) if arg else (3, 9)
  return config_dict.ConfigDict(
    {
      **presets.WAN_LONG,
      'decoder': 'tae',
      'schedule': '4322222' if arg else 'legacy',
      'commit': 'last',
      'sink': sink,
      'window': window,
    }
  )


def training(variant: str) -> config_dict.ConfigDict:
  """Distribution matching of latents and motion, diagonal rollouts."""
  name = '_'.join(filter(None, ('diagdistill', variant)))
  chunk, chunks = (1, 21) if variant == 'frame' else (3, 7)
  config = config_dict.ConfigDict(recipes.wan_student(name))
  config.loop.steps = 2000  # *released config* (second stage)
  flow = flow_distribution.FlowDistributionConfig()  # *paper*: 4, 1, 1, 4
  if variant == 'release':
    flow = flow_distribution.release()
  config.distill.update(
    {
      'negative': presets.WAN_NEGATIVE,  # *released config*
      'schedule': {'name': '4322222', 'commit': 'last'},  # *paper*
      'digits': '12345' if variant == 'digits' else '',  # *ours*
      'chunk': chunk,  # *paper*
      'sink': 3,  # *released config*; the paper's text: 0
      'window': 9,  # *released config*; the paper's text: 12
      'rollout': {'chunks': chunks, 'gradient_chunks': chunks},  # *paper*
      'flow': dataclasses.asdict(flow),
      'target': 'gradient' if variant == 'release' else 'causal',  # *paper*
      'target_schedule': {'name': 'self_forcing'},  # *released code*
    }
  )
  return config
