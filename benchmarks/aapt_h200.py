"""AAPT's 8B generator and discriminator, one training step on 64 H200s.

  .venv-h200/bin/python -m benchmarks.aapt_h200
  .venv-h200/bin/python -m benchmarks.aapt_h200 --frames=40 --extensions=1

Compiles the step of `jaxvid.training.aapt_adversarial` for 8 x 8 H200s on a
machine without a GPU and prints bytes per device and bytes per collective, as
the compiled program has them; nothing is timed. Both networks, their averages
and optimisers lie in parts on all 64 devices; while it rolls out, the generator
is whole on each, in bfloat16. Each video is spread over 8 devices (`context`),
by tokens, in attention by heads (Ulysses, by resharding). The text encoder is
left out: prompts come in encoded. Needs the dependencies of this repository
beside jax's CUDA wheels.

A collective inside a loop is listed with what it moves once; `loop` says so.
"""

import argparse
import collections
import dataclasses
import functools
import json
import math
import re
import time

from benchmarks import h200  # Before jax is imported.

# isort: split
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxvid.data.curriculum import Source, Stage
from jaxvid.models.dit import AAPT_8B
from jaxvid.models.text import TextConfig
from jaxvid.ops.attention import xla
from jaxvid.parallel import mesh as meshes
from jaxvid.parallel import rules
from jaxvid.training import aapt_adversarial, student
from jaxvid.training.aapt_adversarial import AdversarialConfig
from jaxvid.training.aapt_judge import JudgeConfig
from jaxvid.training.aapt_recipes import rmsprop
from jaxvid.training.loop import LoopConfig
from jaxvid.training.optimizer import OptimizerConfig

GROUPS, CONTEXT = 8, 8
TEXT = 256  # rows of a prompt
BATCH = ('data', 'fsdp')


def ulysses(attention, q, k, v, visible):
  """Attention with heads on the devices of `context` and whole sequences."""

  if jax.sharding.get_abstract_mesh().empty:  # The shapes of parameters.
    return attention(q, k, v, visible)

  def place(x, tokens, heads, batch=BATCH):
    spec = PartitionSpec(batch, tokens, heads)
    return jax.lax.with_sharding_constraint(x, spec)

  if q.shape[1] == 1:  # The discriminator's registers: frames side by side.
    every = (*BATCH, 'context')
    q, k, v = (place(x, None, None, every) for x in (q, k, v))
    return place(attention(q, k, v, visible), None, None, every)
  # The limit is meant for one device.
  limit = GROUPS * CONTEXT * xla.LIMIT
  if k.shape[1] <= TEXT:  # Short enough to be whole everywhere.
    return place(attention(q, k, v, visible, limit), 'context', None)
  q, k, v = (place(x, None, 'context') for x in (q, k, v))
  return place(attention(q, k, v, visible, limit), 'context', None)


def make_config(args: argparse.Namespace) -> AdversarialConfig:
  """The step's settings: 640 x 352 as in the paper."""
  dit = dataclasses.replace(
    AAPT_8B, num_layers=args.layers, rope_grid=(26, 46), text_len=TEXT
  )
  source = Source('none', (args.frames + 1,), GROUPS)
  adversary = OptimizerConfig(**rmsprop(3e-6, 0))
  return AdversarialConfig(
    dit=dit,
    text=TextConfig(vocab_size=8, dim=dit.text_dim, num_layers=1),
    tokenizer='',
    weights='',
    stages=(Stage((source,)),),
    judge=JudgeConfig(
      '', tuple(args.layers * n // 36 - 1 for n in (16, 26, 36))
    ),
    judge_optimizer=adversary,
    extensions=args.extensions,
    overlap=6,
    scan=True,
    remat='nothing_saveable',
    dtype='bfloat16',
    gather=True,
  )


def abstract(args: argparse.Namespace, mesh):
  """The step as a function, and its abstract arguments on the mesh."""
  config = make_config(args)
  adversary = OptimizerConfig(**rmsprop(3e-6, 0))
  settings = LoopConfig(steps=500, optimizer=adversary)
  method = aapt_adversarial.method(config, settings)
  init = functools.partial(aapt_adversarial.init, config)
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(lambda key: method.create(init(key)), key)
  places = meshes.tree_shardings(state, mesh, rules.FULLY_SHARDED)
  put = functools.partial(jax.tree.map, _placed)
  state = put(state, places)
  per_batch = NamedSharding(mesh, PartitionSpec(BATCH))
  rows, columns = 352 // 8, 640 // 8
  shape = (GROUPS, args.frames + 1, rows, columns, config.dit.out_dim)
  text = (GROUPS, config.dit.text_len, config.dit.text_dim)
  batch = {
    'latents': jax.ShapeDtypeStruct(shape, jnp.float32, sharding=per_batch),
    'ids': jax.ShapeDtypeStruct(text, jnp.bfloat16, sharding=per_batch),
    'mask': jax.ShapeDtypeStruct(text[:1], bool, sharding=per_batch),
  }
  key = _placed(key, NamedSharding(mesh, PartitionSpec()))

  def update(state, batch, key):
    return method.update(state, None, batch, key)

  return update, (state, batch, key), places


def _placed(leaf, place):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def collectives(text: str) -> dict[str, dict[str, float]]:
  """GB that each kind of collective gives out, in loops and outside."""
  found: dict[str, collections.Counter] = collections.defaultdict(
    collections.Counter
  )
  entry = True
  for line in text.splitlines():
    if line.endswith('{') and not line.startswith(' '):
      entry = line.startswith('ENTRY')
    match = re.search(
      r' = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|'
      r'collective-permute)(?:-start)?\(',
      line,
    )
    if match:
      place = 'outside' if entry else 'loop'
      found[match.group(2)][place] += _bytes(match.group(1)) / 1e9
      found[match.group(2)]['count'] += 1
  return {name: dict(counter) for name, counter in found.items()}


def _bytes(shapes: str) -> int:
  """Bytes of a type in HLO; of a tuple the largest, which is the result."""
  sizes = [0]
  for kind, dims in re.findall(r'([a-z]+\d*)\[([\d,]*)\]', shapes):
    bits = re.search(r'\d+', kind)
    width = max(1, int(bits.group()) // 8) if bits else 1
    sizes.append(width * math.prod(int(d) for d in dims.split(',') if d))
  return max(sizes)


def main() -> None:
  """Compiles and prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--layers', type=int, default=36)
  # A multiple of 8: then whole frames are what a device holds.
  parser.add_argument('--frames', type=int, default=32, help='that are made')
  parser.add_argument('--extensions', type=int, default=0)
  args = parser.parse_args()
  # Prompts come in encoded: the encoder is not what this looks at.
  student.encode = lambda config, frozen, ids, mask: ids
  xla.attention = functools.partial(ulysses, xla.attention)
  mesh = h200.mesh({'data': 1, 'fsdp': GROUPS, 'context': CONTEXT, 'tensor': 1})
  began = time.perf_counter()
  update, specs, places = abstract(args, mesh)
  with jax.set_mesh(mesh):
    executable = (
      jax.jit(update, donate_argnums=0, out_shardings=(places, None))
      .lower(*specs)
      .compile()
    )
  memory = executable.memory_analysis()
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(specs[0].params))
  print(
    json.dumps(
      {
        'settings': vars(args),
        'devices': GROUPS * CONTEXT,
        'parameters': count,
        'compile_s': round(time.perf_counter() - began),
        'argument_gb': memory.argument_size_in_bytes / 1e9,
        'temporary_gb': memory.temp_size_in_bytes / 1e9,
        'collectives_gb': collectives(executable.as_text()),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
