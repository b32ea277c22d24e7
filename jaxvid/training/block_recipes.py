"""What the Block Forcing recipes have in common, as plain data for configs.

BlockVid trains in two stages: on many long takes of mixed length, then on
videos of 50 seconds and more (section 5.1, appendix A.9).
"""

import dataclasses
from typing import Any

from jaxvid.errors import UserError
from jaxvid.models.dit import WAN_1_3B
from jaxvid.training import shapes
from jaxvid.training.recipes import UMT5_XXL

STAGES = ('stage1', 'stage2')
# What the paper does not say is *ours*.
BANK: dict[str, Any] = {
  'retrieved': 2,  # *paper*
  'tau': 0.98,  # *paper*
  'recent_probes': 64,  # *paper*
  'random_probes': 64,  # *paper*
  'capacity': 16,  # *ours*
}
# *ours*: a scene is remembered as it was first seen.
SHAPES_BANK = {
  **BANK,
  'recent_probes': 16,
  'random_probes': 16,
  'evict': 'redundant',
  'alike': 'earlier',
}
# *ours*: 36 frames, 2.25 s. The paper's captions are for 2 to 5 s each; keys
# and values of 21 latents, Wan2.1's whole clip, would fill a GPU in a few
# chunks.
WAN_CHUNK = 9
VELOCITY = {'form': 'anchored', 'gamma': 0.1, 'retrieved': 2}  # *ours*
RISING = {
  'curve': 'cosine',  # *paper*
  'low': 0.2,  # *ours*
  'high': 1.0,  # *paper*: the end of Wan2.1's schedule
  'share': 0.5,  # *ours*
}


def _stage(stage: str) -> str:
  if stage not in STAGES:
    raise UserError(f"no stage '{stage}'; there are {', '.join(STAGES)}")
  return stage


def adversary(
  chunks: int, layers: tuple[int, ...], rate: float
) -> dict[str, Any]:
  """The Self-Forcing loss of a recipe; all of it *ours* but equation 1.

  Args:
    chunks: of a clip; the last four, or fewer, carry gradient.
    layers: blocks that the discriminator reads.
    rate: learning rate of the discriminator.
  """
  return {
    'schedule': {'name': 'self_forcing'},
    'rollout': {'chunks': chunks, 'gradient_chunks': min(4, chunks)},
    'gan': {'generator_weight': 0.01, 'discriminator_weight': 1.0},
    'layers': layers,
    'every': 5,
    'optimizer': {
      'learning_rate': rate,
      'beta1': 0.0,
      'beta2': 0.999,
      'warmup_steps': 20,
      'schedule': 'constant',
    },
  }


# Latents of a clip, batch, steps: short takes, then long ones.
SHAPES = {'stage1': (21, 16, 300), 'stage2': (45, 4, 300)}


def shapes_block(size: str, stage: str, cache: str = '') -> dict[str, Any]:
  """Block Forcing on the shapes world: clips of 5 s, then of 11 s.

  Args:
    size: 'nano', 'small' or 'base'.
    stage: 'stage1' or 'stage2'.
    cache: of its clips, a name of `configs/shapes/latents.py`; empty: the
      stage's own.
  """
  dit, text = shapes.sizes(size)
  frames, batch, steps = SHAPES[_stage(stage)]
  runs, pixels = f'runs/shapes/{size}', shapes.PIXELS[size]
  first = stage == 'stage1'
  name = f'blockvid_{stage}'
  cache = cache or ('scripts' if first else 'scripts_long')
  chunks = frames // 3
  return {
    'task': 'train',
    'workdir': f'{runs}/{name}',
    'export': f'{runs}/{name}_weights',
    'export_dtype': 'float16',
    'loop': {
      'steps': steps,  # *ours*
      'ema_decay': 0.99,
      'optimizer': {
        'learning_rate': 4e-4,  # *ours*; *paper*: 1e-4
        'schedule': 'step',  # *paper*
        'final_fraction': 0.5,  # *paper*: 1e-4, then 5e-5
        'weight_decay': 1e-4,  # *paper*
        'warmup_steps': 20,
      },
    },
    'block': {
      'dit': dataclasses.asdict(dit),
      'text': dataclasses.asdict(text),
      'tokenizer': shapes.TOKENIZER,
      'weights': (shapes.causal(size) if first else f'{runs}/blockvid_stage1'),
      # Checkpoints of a run hold no frozen encoder.
      'encoder': shapes.causal(size),
      'chunk': 3,
      'data': {
        'latents': f'data/latents/{cache}_{pixels}',
        'batch': batch,
        'frames': frames,
      },
      'flow': {'forcing': 'teacher', 'chunk': 3, 'shift': 2.2},
      'velocity': dict(VELOCITY),
      'rising': dict(RISING),
      'adversary': adversary(chunks, (dit.num_layers - 1,), 4e-4),
      'size': (pixels // 8, pixels // 8),
      'window': 9,  # two recent chunks and the current one
      'positions': 'relative',  # *ours*: streams without end
      'bank': dict(SHAPES_BANK),
      'scan': True,
    },
  }


def wan_block(stage: str) -> dict[str, Any]:
  """Block Forcing of SkyReels-V2-DF-1.3B at 480p (appendix A.9).

  Args:
    stage: 'stage1' or 'stage2'.
  """
  first = _stage(stage) == 'stage1'
  # *ours*: cut from videos of any length, then from such of 50 s and more.
  chunks = 7 if first else 13
  name = f'blockvid_{stage}'
  return {
    'task': 'train',
    'workdir': f'runs/wan/{name}',
    'export': f'runs/wan/{name}_weights',
    'loop': {
      # *paper*: one epoch of 1.1 M videos, then two of LV-Bench's 800; at a
      # batch of 32, *ours*.
      'steps': 34_375 if first else 50,
      'optimizer': {
        'kind': 'adamw',  # *paper*
        'learning_rate': 1e-4,  # *paper*
        'schedule': 'step',  # *paper*
        'final_fraction': 0.5,  # *paper*: then 5e-5
        'weight_decay': 1e-4,  # *paper*
        'warmup_steps': 0,
      },
      'mesh': {'fsdp': -1},
    },
    'block': {
      'dit': {**dataclasses.asdict(WAN_1_3B), 'fps': 16},
      'text': UMT5_XXL,
      'tokenizer': 'models/umt5-xxl',
      # *paper*: SkyReels-V2-DF-1.3B, converted (configs/convert.py).
      'weights': (
        'models/skyreels_v2_df_1_3b'
        if first
        else 'runs/wan/blockvid_stage1_weights'
      ),
      'encoder': 'models/umt5-xxl',
      'chunk': WAN_CHUNK,
      'data': {
        'latents': f'data/latents/long_takes_{"mixed" if first else "50s"}',
        'batch': 32,  # *ours*; *paper*: 32 GPUs
        'frames': WAN_CHUNK * chunks,
      },
      'flow': {'forcing': 'teacher', 'chunk': WAN_CHUNK, 'shift': 5.0},
      'velocity': dict(VELOCITY),
      'rising': dict(RISING),
      'adversary': adversary(chunks, (13, 21, 29), 1e-5),
      'size': (60, 106),  # *paper*: 854 x 480, cropped to 848
      'window': 3 * WAN_CHUNK,  # *paper*: two recent chunks, and the current
      'positions': 'absolute',  # *paper*, inferred: as cached
      'bank': dict(BANK),
      'remat': 'nothing_saveable',
      'dtype': 'bfloat16',
      'scan': True,
    },
  }
