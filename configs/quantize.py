"""Puts the shipped transformer into 8 bits (docs/quantization.md).

  python -m jaxvid.main --config=configs/quantize.py
  python -m jaxvid.main --config=configs/quantize.py:w8a8
  python -m jaxvid.main --config=configs/quantize.py:fp8
  python -m jaxvid.main --config=configs/demo.py:causal \
    --config.weights=outputs/shapes_int8

The first three write bundles `outputs/shapes_int8`, `..._w8a8`, `..._fp8`, with
the error of every layer in `report.json`; the last one uses one. Another model:
`--config.stream.weights=FOLDER --config.prompts=FILE --config.target=FOLDER`.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets

MODES = ('int8', 'w8a8', 'fp8')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  mode = arg or 'int8'
  if mode not in MODES:
    raise UserError(f"no precision '{mode}'; there are {', '.join(MODES)}")
  return config_dict.ConfigDict(
    {
      'task': 'quantize',
      'stream': {**presets.CAUSAL, 'seed': 0},
      'target': f'outputs/shapes_{mode}',
      'mode': mode,
      'inputs': 'static',
      'rank': 0,
      'smoothing': 0.0,
      'max_error': 0.1,
      'base': '',
      'prompts': '',
      'count': 8,
      'chunks': 4,
    }
  )
