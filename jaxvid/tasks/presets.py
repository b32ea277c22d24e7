"""How known models are meant to be sampled; shared by the configs."""

from typing import Any

from jaxvid.training import block_recipes

# A causal model before distillation: Euler ticks and guidance per chunk,
# clean context, the first chunk kept as a sink beside a rolling window.
CAUSAL: dict[str, Any] = {
  'weights': 'shapes',
  'decoder': 'vae',
  'schedule': 'euler',
  'steps': 16,
  'shift': 3.0,
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

# DiagDistill's student: 4, 3, then 2 ticks per chunk, no guidance, and the last
# tick's keys and values stay.
DIAGDISTILL: dict[str, Any] = {
  'weights': 'shapes_diagdistill',
  'decoder': 'vae',
  'schedule': '4322222',
  'commit': 'last',
  'guidance': 1.0,
  'chunk': 3,
  'sink': 3,
  'window': 9,
  'positions': 'relative',
}

# The same student after streaming long tuning: prompts may change, and what is
# new gets the ticks of a video's first chunks.
LONGLIVE: dict[str, Any] = {
  **DIAGDISTILL,
  'weights': 'shapes_longlive',
  'switch': {'again': True},
}

# Two recent chunks and those that the prompt retrieves from a sparse bank; a
# change of the prompt computes nothing again.
BLOCKVID: dict[str, Any] = {
  **CAUSAL,
  'weights': 'shapes_blockvid',
  'steps': 8,
  'sink': 0,
  'bank': block_recipes.SHAPES_BANK,
  'switch': {'cache': 'keep'},
}

# One evaluation per latent frame, which recycles the frame before it.
AAPT: dict[str, Any] = {
  'weights': 'shapes_aapt',
  'starter': 'shapes',
  'recycled': True,
  'decoder': 'vae',
  'schedule': '1',
  'commit': 'last',
  'guidance': 1.0,
  'chunk': 1,
  'sink': 1,
  'window': 12,
  'positions': 'absolute',
}

SHAPES = {
  'diagdistill': DIAGDISTILL,
  'longlive': LONGLIVE,
  'blockvid': BLOCKVID,
  'causal': CAUSAL,
  'teacher': TEACHER,
  'aapt': AAPT,
}

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

# Wan2.1 wan/configs/shared_config.py, the negative prompt of every model.
WAN_NEGATIVE = (
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体'
  '发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的'
  '手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画'
  '面，杂乱的背景，三条腿，背景人很多，倒着走'
)
