"""What the distillation recipes have in common, as plain data for configs.

Each config adds what is its own row: schedule, memory, history, objective.
"""

import dataclasses
from typing import Any

from jaxvid.models.dit import WAN_1_3B, WAN_14B
from jaxvid.training import shapes

# UMT5-XXL of Wan2.1 (lineage of Wan2.1, `wan/configs/shared_config.py`).
UMT5_XXL = {
  'vocab_size': 256384,
  'dim': 4096,
  'dim_attn': 4096,
  'dim_ffn': 10240,
  'num_heads': 64,
  'num_layers': 24,
}


def shapes_student(size: str, name: str) -> dict[str, Any]:
  """A distillation on the shapes world, ready for its own row.

  Args:
    size: 'nano', 'small' or 'base'.
    name: of the run, and of the bundle that ships it.
  """
  dit, text = shapes.sizes(size)
  runs = f'runs/shapes/{size}'
  side = shapes.PIXELS[size] // 8
  adam = {  # *ours*: small networks from scratch want larger steps
    'beta1': 0.0,  # *released config*
    'beta2': 0.999,  # *released config*
    'weight_decay': 0.01,  # *released config*
    'clip_norm': 10.0,  # *released config*
    'warmup_steps': 20,
    'schedule': 'constant',
  }
  return {
    'task': 'train',
    'workdir': f'{runs}/{name}',
    'export': shapes.exported(f'shapes_{name}', size),
    'export_dtype': 'float16',
    'loop': {
      'steps': 2000,  # *ours*
      'ema_decay': 0.99,  # *released config*
      'optimizer': {'learning_rate': 2e-4, **adam},  # *ours*
    },
    'distill': {
      'dit': dataclasses.asdict(dit),
      'text': dataclasses.asdict(text),
      'tokenizer': shapes.TOKENIZER,
      'weights': {
        'student': f'{runs}/ode',
        'teacher': f'{runs}/teacher_long',
      },
      'data': {'batch': 16},  # *ours*
      'size': (side, side),
      'critic_optimizer': {'learning_rate': 4e-4, **adam},  # *ours*
      'generator_every': 5,  # *released config*
      'guidance': 4.0,  # *released config* (their 3.0 counts from c)
      'average_after': 40,  # student steps; *released config*: step 200
      'scan': False,
    },
  }


def wan_student(name: str) -> dict[str, Any]:
  """A distillation of Wan2.1 1.3B by 14B, ready for its own row.

  Folders of converted weights (`configs/convert.py`) are expected below
  `models/`.
  """
  adam = {  # *released config*
    'beta1': 0.0,
    'beta2': 0.999,
    'weight_decay': 0.01,
    'clip_norm': 10.0,
    'warmup_steps': 0,
    'schedule': 'constant',
  }
  return {
    'task': 'train',
    'workdir': f'runs/wan/{name}',
    'export': f'runs/wan/{name}_weights',
    'loop': {
      'steps': 600,  # *released config* (Self-Forcing: 120 student steps)
      'ema_decay': 0.99,  # *released config*
      'optimizer': {'learning_rate': 2e-6, **adam},  # *released config*
      'mesh': {'fsdp': -1},
    },
    'distill': {
      'dit': dataclasses.asdict(WAN_1_3B),
      'teacher_dit': dataclasses.asdict(WAN_14B),  # *released config*
      'text': UMT5_XXL,
      'tokenizer': 'models/umt5-xxl',
      'weights': {
        'student': 'models/ode_init',  # *released config*
        'teacher': 'models/wan_14b',
        'critic': 'models/wan_1_3b',  # *released config*
        'text': 'models/umt5-xxl',
      },
      'data': {
        # One prompt per line, filtered and extended (`configs/prompts.py`).
        'prompts': {'file': 'data/vidprom_filtered_extended.txt'},
        'batch': 64,  # *released config*
      },
      'size': (60, 104),  # 480 x 832 pixels
      'critic_optimizer': {'learning_rate': 4e-7, **adam},  # *released config*
      'generator_every': 5,  # *released config*
      'guidance': 4.0,  # *released config* (their 3.0 counts from c)
      'average_after': 40,  # student steps; *released config*: step 200
      'remat': 'nothing_saveable',
      'dtype': 'bfloat16',
    },
  }


# Circling and pulsing, which are learnt last, twice as often as the others.
MOTIONS = (
  'left', 'right', 'up', 'down', 'bounce', 'orbit', 'orbit', 'grow', 'grow',
  'still',
)  # fmt: skip
# What changes at a switch: motions, sizes and shapes, which are learnt last,
# more often.
CHANGES = (
  'motion', 'motion', 'motion', 'size', 'size', 'shape', 'shape', 'colour',
  'speed', 'tone', 'shading',
)  # fmt: skip

# A quarter of the changes of motion are to pulsing, the last to be learnt.
PULSES = (
  'left', 'right', 'up', 'down', 'bounce', 'orbit', 'still', 'grow', 'grow',
  'grow', 'grow', 'grow',
)  # fmt: skip
# What a student tuned by `CHANGES` still misses, and one that it does not.
MISSED = (
  'motion', 'motion', 'motion', 'size', 'size', 'size', 'shape', 'shape',
  'colour',
)  # fmt: skip

# In which a causal student streams without end.
SHORT_MEMORY = {'sink': 3, 'window': 9, 'positions': 'relative'}


def by_chunks(config, size: str) -> None:
  """Turns a student's config of the shapes world to a causal teacher.

  Teacher and critic see every chunk behind the clean ones before it
  (`distill.scored`); all of it *ours*, and so is the memory, in which a causal
  student streams without end.
  """
  config.loop.optimizer.learning_rate = 3e-4
  config.distill.critic_optimizer.learning_rate = 6e-4
  teacher, teacher_dit = shapes.causal_teacher(size)
  config.distill.weights.teacher = teacher
  if teacher_dit != shapes.sizes(size)[0]:
    # The critic has the student's size, so it cannot begin as the teacher.
    config.distill.weights.critic = f'runs/shapes/{size}/causal_teacher'
    config.distill.teacher_dit = dataclasses.asdict(teacher_dit)
  config.distill.weights.student = f'runs/shapes/{size}/ode_causal'
  config.distill.data.update(
    {'batch': 8, 'prompts': {'scenes': {'motions': MOTIONS}}}
  )
  config.distill.update(
    {
      **SHORT_MEMORY,
      'scored': 'chunks',
      # As long as the clips that the causal model learned from.
      'rollout': {'chunks': 4, 'gradient_chunks': 4},
      'target': 'gradient',
      'guidance': 3.0,  # as the causal model is sampled
      'generator_every': 3,
      'critic_first': 60,
    }
  )


def longlive() -> dict[str, Any]:
  """LongLive's student: 4 ticks and a clean one, a short window, a sink."""
  return {
    'schedule': {'name': 'self_forcing'},  # *paper*: 1000, 750, 500, 250
    'chunk': 3,  # *paper*
    'sink': 3,  # *paper*: the first chunk
    'window': 9,  # *paper*
    'positions': 'relative',  # *ours*: streams without end
    'rollout': {'chunks': 7, 'gradient_chunks': 7},  # *paper*: clips of 5 s
  }


def long_tuning(latents: int) -> dict[str, Any]:
  """Streaming long tuning of videos of so many latents."""
  return {
    'long': {
      'latents': latents,  # *paper*: 240 (60 s) and 960 (240 s)
      'overlap': 1,  # *released config*: 3 of 21 latents
      'switches': 1.0,  # *paper*: one per video
      'cache': 'recache',  # *paper*
    },
  }
