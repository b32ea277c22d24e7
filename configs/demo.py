"""Streams a video of the shapes world from your own sentence.

  python -m jaxvid.main --config=configs/demo.py \
    --config.prompt="a red circle moves left"

Uses the small few-step student that ships with the library (DiagDistill, 4, 3,
then 2 ticks per chunk): some seconds to load and compile on two CPU cores, then
frames as they come (how fast is measured by `configs/benchmark/stream.py`).
Other ticks: `--config.schedule=5432222`, any digits 1 to 5, one per chunk, the
last for all that follow. `demo.py:longlive` takes the student that was tuned on
long videos whose prompt changes (docs/longlive.md), `:causal` the model before
distillation, 16 ticks with guidance, `:aapt` the one of docs/aapt.md, and
`:blockvid` the one with a bank of docs/blockvid.md, for scenes that return:

  python -m jaxvid.main --config=configs/demo.py:blockvid \
    --config.switch.script=configs/scripts/shapes_returning.jsonl \
    --config.seconds=24

Writes an H.264 mp4 of 16 frames per second,
`outputs/a-red-circle-moves-left.mp4`, every pixel drawn as a 4 x 4 square,
and a contact sheet `.png`, and prints both paths. `--config.seconds=60`
streams a minute in the same memory.

The model knows one to three objects (circle, square, triangle, ...), colours,
sizes, motions (left, right, up, down, bounce, orbit, grow, still; slow or
fast), backgrounds and camera pans; other words are named and ignored. How
its weights were trained: docs/model_card.md.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  models = [name for name in presets.SHAPES if name != 'teacher']
  model = arg or models[0]
  if model not in models:
    raise UserError(f"no model '{model}'; there are {', '.join(models)}")
  return config_dict.ConfigDict(
    {
      'task': 'generate',
      'prompt': 'a red circle moves left',
      'seconds': 5.0,
      'upscale': 4,
      **presets.SHAPES[model],
    }
  )
