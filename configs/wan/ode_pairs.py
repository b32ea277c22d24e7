"""Makes ODE pairs of Wan2.1, which initialise few-step students.

  python -m jaxvid.main --config=configs/wan/ode_pairs.py \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.prompts.file=data/vidprom_filtered_extended.txt
  python -m jaxvid.main --config=configs/wan/ode_pairs.py:causvid \
    --config.weights=Wan2.1-T2V-1.3B \
    --config.prompts.file=data/vidprom_filtered_extended.txt

`weights` is the published folder; prompts come from `configs/prompts.py`.
Many processes, one per device, fill one cache: start each with
`--config.workers=64 --config.worker=0` to 63. `:causvid` keeps the time steps
of CausVid's student. Not measured on a GPU.

*Released config* means the constants of Self-Forcing's
`scripts/generate_ode_pairs.py`, and of CausVid's for that variant. The former
keeps raw 1000, 750, 500 and 250 at the teacher's shift 8, which are not the
time steps of a student of shift 5; here the solver keeps shift 8 and passes
exactly through the student's own.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.tasks import presets


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'causvid'):
    raise UserError(f"no variant '{arg}'; there is 'causvid'")
  return config_dict.ConfigDict(
    {
      'task': 'ode_pairs',
      'weights': 'Wan2.1-T2V-1.3B',
      'target': f'data/pairs/wan_{arg or "self_forcing"}',
      'source': 'teacher',
      # Raw 1000, 750, 500, 250 at shift 5: *paper*; 1000, 757, 522: *released
      # config*.
      'schedule': {'name': arg or 'self_forcing'},
      'solver': 'euler',  # *released config*
      'steps': 50 if arg else 48,  # *released config*
      'shift': 8.0,  # *released config*
      'guidance': 6.0,  # *released config* (Self-Forcing)
      'negative_prompt': presets.WAN_NEGATIVE,  # *released config*
      'frames': 21,  # *paper*
      'prompts': {'file': 'data/vidprom_filtered_extended.txt'},  # *paper*
      'clips': 1536,  # 1.5K: *released config* (CausVid)
      'shard': 8,  # *ours*
      'batch': 1,
    }
  )
