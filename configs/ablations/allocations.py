"""Tables 3, 5 and 6 of DiagDistill: allocations of ticks to chunks.

  python -m jaxvid.main --config=configs/ablations/allocations.py
  python -m jaxvid.main --config=configs/ablations/allocations.py \
    --config.clips=1024

Every allocation twice: with the last, noisy tick in memory (diagonal), and
with clean memory, which costs one more pass per chunk (self). Two trainings,
the students of random digits of `components.py` with seed 0; a student
without clean memory in training is never asked for it. Each of its 28
measurements takes a minute for 128 clips on one CPU core.
"""

from ml_collections import config_dict

from jaxvid.tasks import ablations
from jaxvid.tasks.ablations import CLEAN, DIAGONAL, arm, claim

# Table 6 (and 3): T temporal, F frame, A text alignment.
DIAGONAL_PUBLISHED = {
  '5333333': 'T 95.0, F 63.9, A 29.1',
  '4333333': 'T 95.0, F 63.7, A 28.5',
  '5433333': 'T 95.1, F 63.2, A 29.3',
  '5432222': 'T 94.8, F 63.1, A 29.0',
  '4322222': 'T 94.9, F 63.4, A 28.9',
  '4222222': 'T 93.4, F 62.3, A 27.8',
  '5422222': 'T 95.1, F 64.1, A 29.2',
  '5522222': 'T 95.3, F 63.8, A 29.4',
  '4432222': 'T 94.9, F 63.5, A 28.8',
  '4343232': 'T 95.0, F 63.6, A 28.4',
  '4532232': 'T 95.0, F 63.7, A 28.6',
  '3333533': 'T 93.5, F 60.0, A 27.7',
  '3233343': 'T 93.6, F 60.9, A 27.9',
  '4444444': 'T 95.1, F 63.2, A 28.6',
}
# Table 5.
SELF_PUBLISHED = {
  '4322222': 'T 93.5, F 62.1, A 27.5',
  '5432222': 'T 93.9, F 62.3, A 28.1',
  '4333333': 'T 94.2, F 62.8, A 27.8',
  '5333333': 'T 94.5, F 63.0, A 28.6',
  '5433333': 'T 94.3, F 62.5, A 28.4',
  '4444444': 'T 94.3, F 63.1, A 29.3',
}
EQUAL = 0.03
CHOSEN = 'diagonal_4322222'


def get_config(arg: str = '') -> config_dict.ConfigDict:
  arms = []
  for digits, published in DIAGONAL_PUBLISHED.items():
    at = float(sum(map(int, digits)))
    for line, stream, training, own in (
      ('diagonal', DIAGONAL, 'digits', published),
      ('self', CLEAN, 'clean', SELF_PUBLISHED.get(digits, '')),
    ):
      stream = {**stream, 'schedule': digits}
      arms.append(arm(f'{line}_{digits}', training, stream, own, at, line))
  return config_dict.ConfigDict(
    {
      **ablations.base('allocations', 'Allocations (Tables 3, 5, 6)', arg),
      'trainings': ablations.trainings(arg, 'digits', 'clean', seeds=(0,)),
      'axis': 'ticks per clip (clean passes not counted)',
      'arms': arms,
      # The tables need no reading of single chunks.
      'evaluate': [*ablations.base('', '', arg)['evaluate'], 'probe_every=0'],
      'claims': [
        *_diagonal_over_self(),
        *_step_orderings(),
      ],
    }
  )


def _diagonal_over_self() -> list[dict]:
  pairs = [(f'diagonal_{d}', f'self_{d}') for d in SELF_PUBLISHED]
  claims = []
  for metric, what in (('motion', 'temporal'), ('right', 'text')):
    for noisy, clean in pairs:
      digits = noisy.removeprefix('diagonal_')
      text = f'Table 5: diagonal over self at {digits}, {what}'
      # The one entry of the table that is the other way round.
      turned = digits == '4444444' and metric == 'right'
      sides = (clean, noisy) if turned else (noisy, clean)
      text = text.replace('diagonal over self', 'self over diagonal', turned)
      claims.append(claim(text, *sides, metric))
  return claims


def _step_orderings() -> list[dict]:
  claims = [
    claim(
      'Table 3: 4222222 falls short of 4322222',
      CHOSEN,
      'diagonal_4222222',
      metric,
    )
    for metric in ('right', 'motion', 'shape')
  ]
  for digits in ('3333533', '3233343'):
    claims += [
      claim(
        f'Table 6: more ticks late ({digits}) harm',
        CHOSEN,
        f'diagonal_{digits}',
        metric,
      )
      for metric in ('right', 'motion')
    ]
  for digits in ('5333333', '5433333', '5422222', '5522222', '4444444'):
    claims.append(
      claim(
        f'Tables 3, 6: 4322222 is comparable to {digits}',
        CHOSEN,
        f'diagonal_{digits}',
        margin=EQUAL,
      )
    )
  return claims
