"""Streams a video of the shapes world from your own sentence.

  python -m jaxvid.main --config=configs/demo.py \
    --config.prompt="a red circle moves left"

Uses the small model that ships with the library: some seconds to load and
compile on two CPU cores, then frames as they come (how fast is measured by
`configs/benchmark/stream.py`). Writes an H.264 mp4 of 16 frames per second,
`outputs/a-red-circle-moves-left.mp4`, every pixel drawn as a 4 x 4 square,
and a contact sheet `.png`, and prints both paths. `--config.seconds=60`
streams a minute in the same memory.

The model knows one to three objects (circle, square, triangle, ...), colours,
sizes, motions (left, right, up, down, bounce, orbit, grow, still; slow or
fast), backgrounds and camera pans; other words are named and ignored. How
its weights were trained: `configs/shapes/vae.py`, `tae.py`, `teacher.py` and
`causal.py`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'aapt'):
    raise UserError(
      f"no model '{arg}'; there is 'aapt', and without a name the causal one"
    )
  model = presets.AAPT if arg else presets.CAUSAL
  return config_dict.ConfigDict(
    {
      'task': 'generate',
      'prompt': 'a red circle moves left',
      'seconds': 5.0,
      'upscale': 4,
      **model,
    }
  )
