"""What the recipes of AAPT have in common, as plain data for configs.

Marks: *paper* is the supplement's value, *ours* is not. The paper's videos
have 24 frames per second and 6 latents; those of Wan2.1 and of the shapes
world have 16 and 4, so a second is fewer latents here.
"""

import dataclasses
from typing import Any

from jaxvid.errors import UserError
from jaxvid.models.dit import WAN_1_3B
from jaxvid.training import shapes
from jaxvid.training.recipes import UMT5_XXL

# In the order they are run; the warm-up may be left out.
STAGES = ('adapt', 'consistency', 'matching', 'adversarial', 'long1', 'long5')
EXTENSIONS = {'adversarial': 0, 'long1': 1, 'long5': 5}
# Section of the config that a stage fills.
SECTIONS = dict.fromkeys(EXTENSIONS, 'aapt_adversarial') | {
  name: f'aapt_{name}' for name in ('adapt', 'consistency', 'matching')
}
# Which weights it starts from, unless told otherwise.
BEFORE = {
  'consistency': 'adapt',
  'matching': 'consistency',
  'adversarial': 'consistency',
  'long1': 'adversarial',
  'long5': 'long1',
}
# *ours*: blocks that the discriminator reads, by depth (APT: 16, 26, 36 of
# 36 blocks, counted from 1).
LAYERS = {4: (1, 2, 3), 6: (2, 4, 5), 12: (5, 8, 11), 30: (13, 21, 29)}
WINDOW = 12  # *ours*, of clips of 21 latents; *paper*: 30 of up to 60


def extension(arg: str) -> str:
  """'1' or '5' -> name of the stage of long videos."""
  name = f'long{arg or 1}'
  if name not in EXTENSIONS:
    raise UserError(f"no extension '{arg}'; there are 1 and 5")
  return name


def rmsprop(rate: float, warmup: int) -> dict[str, Any]:
  """The optimiser of adversarial training, of both networks."""
  return {
    'kind': 'rmsprop',  # *paper*
    'beta2': 0.9,  # *paper* (alpha)
    'learning_rate': rate,
    'weight_decay': 0.0,  # *ours*
    'schedule': 'constant',  # *ours*
    'warmup_steps': warmup,  # *ours*
  }


def shapes_stage(size: str, stage: str) -> dict[str, Any]:
  """One stage on the shapes world.

  Args:
    size: 'nano', 'small' or 'base'.
    stage: one of `STAGES`.
  """
  dit, text = shapes.sizes(size)
  side = shapes.PIXELS[size]
  dit = dataclasses.replace(
    dit, in_dim=2 * dit.out_dim, rope_grid=(side // 16, side // 16)
  )
  runs = f'runs/shapes/{size}'
  own: dict[str, Any] = {
    'dit': dataclasses.asdict(dit),
    'text': dataclasses.asdict(text),
    'tokenizer': shapes.TOKENIZER,
    'weights': f'{runs}/aapt_{BEFORE.get(stage)}_weights',
    'encoder': shapes.causal(size),
    'sink': 1,  # *paper*
    'window': WINDOW,
    'chunk': 1,  # *paper*
    # *ours*; what is made is whole chunks of 1 and of 3.
    'stages': [{'sources': [_clips(side, (13, 19), 12)]}],
  }
  if stage == 'adapt':
    own |= {
      'weights': shapes.causal(size),
      'stages': _shapes_curriculum(side),
    }
  elif stage == 'matching':
    own |= _matching(f'{runs}/teacher_long')
    if size in shapes.CAUSAL_ONLY:  # A larger one teaches it.
      own['teacher'] = shapes.exported('shapes_teacher', 'small')
      own['teacher_dit'] = dataclasses.asdict(shapes.sizes('small')[0])
    # The teacher's clips all have this length.
    own['stages'] = [{'sources': [_clips(side, (21,), 8)]}]
  elif stage in EXTENSIONS:
    own |= _adversarial(stage, runs, dit.num_layers)
    own['judge_optimizer'] = rmsprop(1e-4, 10)
    own['overlap'] = 5  # about *paper*'s second
    if stage != 'adversarial':
      own['stages'] = [{'sources': [_clips(side, (17, 21), 6)]}]
  last = stage == 'long5'
  return {
    'task': 'train',
    'workdir': f'{runs}/aapt_{stage}',
    'export': (
      shapes.exported('shapes_aapt', size)
      if last
      else f'{runs}/aapt_{stage}_weights'
    ),
    # What goes on learning keeps its precision.
    'export_dtype': 'float16' if last else 'float32',
    'loop': {'ema_decay': 0.99, **_SHAPES_LOOPS[stage]},  # *ours*
    SECTIONS[stage]: own,
  }


_ADAM = {'weight_decay': 0.01, 'warmup_steps': 30}  # *paper*, *ours*
_SHAPES_LOOPS = {  # *ours*: small networks want larger steps
  'adapt': {
    'steps': 1000,
    'optimizer': {'kind': 'muon', 'learning_rate': 2e-3, **_ADAM},
  },
  'consistency': {
    'steps': 500,
    'optimizer': {'learning_rate': 3e-4, **_ADAM},
  },
  'matching': {
    'steps': 500,
    'optimizer': {
      'learning_rate': 1e-4,
      'beta1': 0.0,
      'beta2': 0.999,
      'schedule': 'constant',
      **_ADAM,
    },
  },
  'adversarial': {'steps': 500, 'optimizer': rmsprop(1e-4, 10)},
  'long1': {'steps': 150, 'optimizer': rmsprop(1e-4, 10)},
  'long5': {'steps': 60, 'optimizer': rmsprop(1e-4, 10)},
}


def _clips(
  side: int,
  frames: tuple[int, ...],
  batch: int,
  weight: float = 1.0,
  caches: tuple[str, ...] = ('long', 'turns'),
) -> dict[str, Any]:
  return {
    'latents': ','.join(f'data/latents/{name}_{side}' for name in caches),
    'frames': frames,
    'batch': batch,
    'weight': weight,
  }


def _shapes_curriculum(side: int) -> list[dict[str, Any]]:
  """*ours*, after the paper's: short, then larger too, then long."""

  def larger(weight):
    return _clips(2 * side, (13,), 5, weight, ('long',))

  return [
    {'steps': 400, 'sources': [_clips(side, (9, 13), 24)]},
    {'steps': 200, 'sources': [_clips(side, (13,), 20), larger(0.5)]},
    {'sources': [_clips(side, (21,), 12), larger(0.2)]},
  ]


def _matching(teacher: str) -> dict[str, Any]:
  critic = {
    'learning_rate': 2e-4,
    'beta1': 0.0,
    'beta2': 0.999,
    'schedule': 'constant',
  }
  return {'teacher': teacher, 'guidance': 4.0, 'critic_optimizer': critic}


def _adversarial(stage: str, runs: str, layers: int) -> dict[str, Any]:
  # Losses and penalties: `gan.AAPT`, *paper*. The discriminator starts from
  # the adaptation (*paper*); on long videos it goes on (*ours*).
  judge = f'{runs}/aapt_adapt_weights'
  if stage != 'adversarial':
    judge = f'{runs}/aapt_{BEFORE[stage]}'
  return {
    'judge': {'weights': judge, 'layers': LAYERS[layers], 'scores': 'frames'},
    'forcing': 'student',  # *paper*
    'gradient': 'memory',  # *ours*: recycled frames are inputs
    'extensions': EXTENSIONS[stage],  # *paper*
  }


def wan_stage(stage: str) -> dict[str, Any]:
  """One stage of Wan2.1 1.3B.

  Converted weights are expected below `models/`, latents of the sizes named
  below `data/latents/`.
  """
  # 480 x 832, the size that Wan2.1 1.3B was trained at: *ours*.
  dit = dataclasses.replace(WAN_1_3B, in_dim=32, rope_grid=(30, 52))
  runs = 'runs/wan'
  rate = 3e-6 if stage == 'adversarial' else 1e-5  # *paper*
  adversary = rmsprop(rate, 0)
  own: dict[str, Any] = {
    'dit': dataclasses.asdict(dit),
    'text': UMT5_XXL,
    'tokenizer': 'models/umt5-xxl',
    'weights': f'{runs}/aapt_{BEFORE.get(stage)}_weights',
    'encoder': 'models/umt5-xxl',
    'sink': 1,  # *paper*
    'window': 30,  # *paper*
    'chunk': 1,  # *paper*
    'remat': 'nothing_saveable',  # *paper*: checkpointing per block
    'scan': True,
    'dtype': 'bfloat16',
    'stages': [{'sources': [_wan((352, 640), (21, 31, 41), 256)]}],  # *paper*
  }
  if stage == 'adapt':
    own |= {'weights': 'models/wan_1_3b', 'stages': _wan_curriculum()}
  elif stage == 'consistency':
    own['stages'] = _wan_curriculum()[-1:]  # *paper*
  elif stage == 'matching':
    own |= _matching('models/wan_1_3b')
    own['critic_optimizer']['learning_rate'] = 4e-7
    own['stages'] = [{'sources': [_wan((480, 832), (21,), 64)]}]
  else:
    own |= _adversarial(stage, runs, dit.num_layers)
    own |= {'judge_optimizer': adversary, 'overlap': 5}  # about *paper*: 1 s
    own['gather'] = True  # *paper*: ZeRO 2 while it rolls out
    if stage != 'adversarial':
      own['stages'][0]['sources'][0]['batch'] = 64  # *paper*
  adam = {  # *paper*
    'learning_rate': rate,
    'weight_decay': 0.01,
    'schedule': 'constant',
    'warmup_steps': 0,
  }
  return {
    'task': 'train',
    'workdir': f'{runs}/aapt_{stage}',
    'export': f'{runs}/aapt_{stage}_weights',
    'loop': {
      'steps': _WAN_STEPS[stage],
      'ema_decay': 0.99,  # *ours*
      'optimizer': adversary if stage in EXTENSIONS else adam,
      'mesh': {'fsdp': -1},
    },
    SECTIONS[stage]: own,
  }


_WAN_STEPS = {
  'adapt': 30_000,  # *paper*
  'consistency': 5_000,  # *paper*
  'matching': 2_500,  # *ours*: 500 of the generator
  'adversarial': 500,  # *paper*
  'long1': 500,  # *paper*
  'long5': 500,  # *ours*: no number is printed
}


def _wan(
  size: tuple[int, int], frames: tuple[int, ...], batch: int, weight=1.0
) -> dict[str, Any]:
  return {
    'latents': f'data/latents/wan_{size[1]}x{size[0]}',
    'frames': frames,
    'batch': batch,
    'weight': weight,
  }


def _wan_curriculum() -> list[dict[str, Any]]:
  """*paper*: 5 s; larger ones too; up to 15 s. How they mix is *ours*."""
  low, high = (416, 736), (720, 1280)
  return [
    {'steps': 20_000, 'sources': [_wan(low, (21,), 256)]},
    {
      'steps': 6_000,
      'sources': [_wan(low, (21,), 128), _wan(high, (21,), 128)],
    },
    {
      'sources': [
        _wan(low, (21, 41, 61), 32),
        _wan(high, (21,), 32, 0.5),
      ]
    },
  ]
