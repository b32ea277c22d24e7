"""How known models are meant to be sampled; shared by the configs."""

from typing import Any

# A causal model before distillation: Euler ticks and guidance per chunk,
# clean context, the first chunk kept as a sink beside a rolling window.
CAUSAL: dict[str, Any] = {
  'weights': 'shapes',
  'decoder': 'vae',
  'schedule': 'euler',
  'steps': 16,
  'shift': 5.0,
  'commit': 'clean',
  'guidance': 3.0,
  'chunk': 3,
  'sink': 3,
  'window': 9,
  'positions': 'relative',
}

# The bidirectional teacher: a whole clip at once.
TEACHER: dict[str, Any] = {
  'weights': 'shapes_teacher',
  'decoder': 'vae',
  'schedule': 'teacher',
  'steps': 50,
  'shift': 5.0,
  'guidance': 3.0,
}

SHAPES = {'causal': CAUSAL, 'teacher': TEACHER}

# Wan2.1-family weights as published, at the size and length of their videos.
WAN: dict[str, Any] = {
  'task': 'generate',
  'prompt': '',
  'seconds': 5.0,
  'weights': 'Wan2.1-T2V-1.3B',
  'decoder': 'vae',
  'height': 480,
  'width': 832,
}

# Its streams, all 21 latents of a 5 s clip visible.
WAN_STREAM: dict[str, Any] = {
  **WAN,
  'commit': 'clean',
  'chunk': 3,
  'sink': 0,
  'window': 21,
}

# LongLive's weights, which DiagDistill samples too, and its short memory.
WAN_LONG: dict[str, Any] = {
  **WAN_STREAM,
  'checkpoint': 'models/longlive_base.pt',
  'lora': 'models/lora.pt',
  'sink': 3,
  'window': 9,
}
