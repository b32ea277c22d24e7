"""LongLive, stage 2 on the shapes world: streaming long tuning.

  python -m jaxvid.main --config=configs/shapes/longlive_long.py:small
  python -m jaxvid.main --config=configs/shapes/longlive_long.py:small,240

Videos of 60 s (or 240 s) go on from step to step by clips of 21 latents, of
which 18 are new; the teacher scores them with the caption that is on. One
thing of every scene changes once, and the memory is made anew for the new
caption. Adapters alone are trained, of student and critic. Goes on from
`configs/shapes/longlive_init.py`.

`chunks` tunes the student that ships (`diagdistill.py:small,chunks`) with its
schedule: the chunks of a clip are scored behind those before them, in clips of
12 latents, by a causal model that has seen many captions change
(`causal.py:small,switches`). Captions change to and fro, about every 4 s, and
all weights are trained; `chunks_lora` has adapters. `pulses` goes on from
`chunks` with the changes that are still missed and their teacher
(`causal.py:small,pulses`), in smaller and smaller steps; `again` goes on from
there, and where the prompt changes the schedule begins again. What came of
each: docs/longlive.md. At size `nano` all are scored like that, by the causal
model that ships.

For comparison: `short` (clips of 5 s, each from its beginning), `naive` (whole
videos of 60 s at once, scored as one; its memory grows with them), `full` (all
weights, no adapters), `sink0` (from stage 1 without a sink). Source: LongLive,
sections 3.1 to 3.3 and appendix F; its `longlive_train_long.yaml` where
marked. `chunks`, `pulses` and `again` take 0.6 steps/s on one CPU core; the
others have not been timed.
"""

from ml_collections import config_dict

from jaxvid.errors import UserError
from jaxvid.training import recipes, shapes

LAST = ('pulses', 'again')
CHUNKS = ('chunks', 'chunks_lora', *LAST)
VARIANTS = ('', '60', '240', *CHUNKS, 'short', 'naive', 'full', 'sink0')


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, variant = (arg or 'small').partition(',')
  if variant not in VARIANTS:
    names = ', '.join(VARIANTS[1:])
    raise UserError(f"no variant '{variant}'; there are {names}")
  name = '_'.join(filter(None, ('longlive', variant.replace('60', ''))))
  config = config_dict.ConfigDict(recipes.shapes_student(size, name))
  config.loop.update(
    {'steps': 1000}  # *ours*; *paper*: 3,000 for 60 s
  )
  config.distill.update(recipes.longlive())
  by_chunks = size in shapes.CAUSAL_ONLY or variant in CHUNKS
  if by_chunks:
    recipes.by_chunks(config, size)
  start = 'longlive_init_sink0' if variant == 'sink0' else 'longlive_init'
  config.distill.weights.student = f'runs/shapes/{size}/{start}_weights'
  if variant == 'sink0':
    config.distill.update({'sink': 0, 'window': 12})
  if variant not in ('full', 'chunks', *LAST):
    # *ours*: the share of all weights that rank 256 is at 1.3B (a quarter).
    rank = shapes.sizes(size)[0].dim // 6
    config.distill.lora = {'rank': rank, 'alpha': float(rank)}
    if by_chunks:  # Adapters want more.
      config.loop.optimizer.learning_rate = 8e-4
      config.distill.critic_optimizer.learning_rate = 1.6e-3
  if variant == 'naive':
    config.distill.rollout = {'chunks': 80, 'gradient_chunks': 80}
  elif variant != 'short':
    seconds = 240 if variant == '240' else 60
    config.distill.update(recipes.long_tuning(4 * seconds))
    config.distill.vae = shapes.VAE  # *released config*
  if variant in CHUNKS:
    config.loop.steps = 3000
    config.distill.weights.student = shapes.exported('shapes_diagdistill', size)
    config.export = f'runs/shapes/{size}/{name}_weights'
    config.distill.schedule = {'name': '4322222', 'commit': 'last'}
    config.distill.long.every = 2  # Every second turn learns from a change.
    config.distill.data.prompts.scenes.changes = recipes.CHANGES
    config.distill.generator_every = 2
    if size not in shapes.CAUSAL_ONLY:
      config.distill.weights.teacher = f'runs/shapes/{size}/causal_switches'
  if variant in LAST:
    before = 'chunks' if variant == 'pulses' else 'pulses'
    config.loop.steps = 900 if variant == 'pulses' else 1200
    config.loop.optimizer.schedule = 'cosine'
    config.distill.weights.student = (
      f'runs/shapes/{size}/longlive_{before}_weights'
    )
    config.distill.long.again = variant == 'again'
    config.distill.data.prompts.scenes.motions = recipes.PULSES
    config.distill.data.prompts.scenes.changes = recipes.MISSED
    if size not in shapes.CAUSAL_ONLY:
      config.distill.weights.teacher = f'runs/shapes/{size}/causal_pulses'
  return config
