"""Table 5 of BlockVid: rolling, dynamic sparse and semantic sparse caches.

  python -m jaxvid.main --config=configs/ablations/block_memory.py
  python -m jaxvid.main --config=configs/ablations/block_memory.py:small

One recipe, three seeds, sampled in memories of the same size: two recent
chunks and two more, the next recent ones (rolling: all their tokens; dynamic:
the important ones) or those whose prompts are most like the current one.
Sweeps besides: tau, the number of retrieved chunks, recent chunks as printed
in algorithm 1, one selection for all layers, probes that see their whole
chunk. At size `small` a measurement of 32 clips takes 50 s on one CPU core;
there are 36.
"""

from ml_collections import config_dict

from jaxvid.tasks import block_ablations as block
from jaxvid.tasks.ablations import arm


def get_config(arg: str = '') -> config_dict.ConfigDict:
  semantic, dynamic = block.SEMANTIC, block.DYNAMIC
  rows = {
    'rolling': (block.ROLLING, 'subject .0961, background .3519'),
    'dynamic_97': (
      {**dynamic, 'bank.tau': 0.97},
      'subject .0927, background .3074',
    ),
    'dynamic_98': (
      {**dynamic, 'bank.tau': 0.98},
      'subject .0910, background .3040',
    ),
    'semantic_97': (
      {**semantic, 'bank.tau': 0.97},
      'subject .0869, background .2988',
    ),
    'semantic_98': (
      {**semantic, 'bank.tau': 0.98},
      'subject .0844, background .2945',
    ),
    'semantic_50': ({**semantic, 'bank.tau': 0.5}, ''),
    'semantic_100': ({**semantic, 'bank.tau': 1.0}, ''),
    'retrieved_1': ({**semantic, 'bank.retrieved': 1}, ''),
    'retrieved_4': ({**semantic, 'bank.retrieved': 4}, ''),
    'literal': ({**semantic, 'bank.literal': True}, ''),
    'shared_layers': ({**semantic, 'bank.share_layers': True}, ''),
    'whole_chunk': ({**semantic, 'bank.causal': False}, ''),
  }
  others = ('rolling', 'dynamic_97', 'dynamic_98', 'semantic_97')
  return config_dict.ConfigDict(
    {
      **block.base('block_memory', 'Caches (Table 5)', arg),
      'trainings': block.trainings(arg, block.FULL),
      'arms': [
        arm(name, block.FULL, stream, published)
        for name, (stream, published) in rows.items()
      ],
      'claims': [
        row
        for other in others
        for row in block.drift_claims('Table 5', 'semantic_98', other)
      ],
    }
  )
