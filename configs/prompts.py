"""Filters a list of prompts and has a language model extend them.

  python -m jaxvid.main --config=configs/prompts.py \
    --config.source=VidProM_unique.csv --config.target=prompts.txt \
    --config.chat.base_url=http://localhost:8000/v1 \
    --config.chat.model=Qwen3-8B

`source` is a list in VidProM's layout (CSV with a column `prompt` and six
probabilities of being unsafe), plain text with one prompt per line, or JSON
lines. `chat` is any OpenAI-compatible endpoint; a service that wants a key
finds it in the environment: `--config.chat.api_key_env=OPENAI_API_KEY`. With
no model the list is filtered only. Stopped or killed, the job goes on with the
prompts that are missing.

  python -m jaxvid.main --config=configs/prompts.py:switch \
    --config.source=prompts.txt --config.target=prompts_switch.txt \
    --config.chat.model=Qwen2-72B-Instruct

asks what follows each prompt of a list that is filtered already, for videos
whose prompt changes: one thing happens, all else stays (LongLive, appendix E,
in our words). With a `.jsonl` target and `--config.scenes=6` the lines are
scripts of six prompts, as LongLive's interactive example.

That prompts are filtered and extended is *paper* (DiagDistill 4.1, VidProM)
and how many is *ours*, as are all thresholds and the instruction: none was
published.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError


def get_config(arg: str = '') -> config_dict.ConfigDict:
  if arg not in ('', 'switch'):
    raise UserError(f"no variant {arg!r}; there is 'switch'")
  config = config_dict.ConfigDict(
    {
      'task': 'prompts',
      'source': 'VidProM_unique.csv',
      'target': 'prompts.txt',
      'count': 0,  # *ours*; 0 = all
      'filter': {
        'min_words': 3,  # *ours*
        'max_words': 120,  # *ours*
        'max_unsafe': 0.1,  # *ours*
        'min_ascii': 0.95,  # *ours*
      },
      'chat': {
        'base_url': 'http://localhost:8000/v1',
        'model': '',
        'api_key_env': '',
      },
      'workers': 8,
    }
  )
  if arg == 'switch':
    config.kind = 'switch'
    config.chat.model = 'Qwen2-72B-Instruct'  # *paper*
    # The list stays as it is, so that both belong together line by line.
    config.filter = {
      'min_words': 1,
      'max_words': 100_000,
      'max_unsafe': 1.0,
      'min_ascii': 0.0,
      'english': False,
      'duplicates': False,
    }
  return config
