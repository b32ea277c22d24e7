"""How the shipped models are meant to be sampled; shared by the configs."""

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
