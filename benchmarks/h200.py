"""Compiles for H200s on a machine without a GPU: kernels, copies, registers.

The CUDA wheels of jax hold all compilers down to `ptxas`, and a text file
says what an H200 is (`h200.txtpb`, from openxla's target configurations), so
a program can be compiled, and its machine code looked at, on any CPU. That
shows what a program consists of. It times nothing, and which of several
matrix-product kernels the card would pick stays open, since that is timed.

    make test-h200        # makes its environment (.venv-h200), runs tests/h200

    from benchmarks import h200
    exe = h200.compile(f, h200.spec((1, 4680, 1536), 'bfloat16'))
    print(h200.report(exe))

Import it before jax has been used. Needs no other part of this repository.
"""

import collections
import contextlib
import dataclasses
import io
import math
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Autotuning times kernels, for which there is no device.
os.environ.setdefault('XLA_FLAGS', '--xla_gpu_autotune_level=0')

import jax
from jax.experimental import topologies

_TARGET = pathlib.Path(__file__).with_name('h200.txtpb')
_COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_meshes = {}


@dataclasses.dataclass(frozen=True)
class Kernel:
  """What the compiler says about a Mosaic kernel.

  Attributes:
    registers: per thread, before warpgroups trade some.
    spills: bytes spilled, stores and loads together.
    shared: bytes of shared memory asked for; None where kernels cannot be
      told apart.
    wgmma: shape and types of every matrix instruction -> how often it stands
      in the code.
  """

  registers: int
  spills: int
  shared: int | None
  wgmma: dict[str, int]


def mesh(axes: dict[str, int] | None = None) -> jax.sharding.Mesh:
  """A mesh of abstract H200s, eight to a host; axes maps name -> size."""
  axes = dict(axes or {'device': 1})
  key = tuple(axes.items())
  if key not in _meshes:
    count = math.prod(axes.values())
    hosts, per_host = (1, count) if count <= 8 else (count // 8, 8)
    topology = topologies.get_topology_desc(
      platform='cuda',
      target_config=_TARGET.read_text(),
      topology=f'1x{hosts}x{per_host}',
    )
    _meshes[key] = topologies.make_mesh(
      topo=topology,
      mesh_shape=tuple(axes.values()),
      axis_names=tuple(axes),
    )
  return _meshes[key]


def spec(shape, dtype, partition=None, on=None):
  """An abstract array on the devices of mesh `on` (one H200 by default)."""
  sharding = jax.sharding.NamedSharding(
    on or mesh(), partition or jax.sharding.PartitionSpec()
  )
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def specs(tree):
  """The same for a tree of arrays or of `jax.eval_shape` results."""
  return jax.tree.map(lambda x: spec(x.shape, x.dtype), tree)


def compile(fun, *args, options=None, **jit_options):
  """Compiles `fun` for abstract arguments (trees of `spec`).

  Args:
    fun: a function of arrays.
    *args: its arguments.
    options: compiler options, `xla_gpu_...` -> value.
    **jit_options: for `jax.jit`, e.g. `donate_argnums`.

  Returns:
    The executable; it cannot run here.
  """
  jitted = jax.jit(fun, compiler_options=options, **jit_options)
  return jitted.lower(*args).compile()


def report(executable, copy_bytes: int = 2**20) -> dict:
  """Kernels, copies over `copy_bytes`, collectives and memory."""
  text = executable.as_text()
  memory = executable.memory_analysis()
  copies, collectives = [], collections.Counter()
  for line in text.splitlines():
    match = re.match(
      r'\s*(?:ROOT )?%?([\w.\-]+) = (\(?)(\w+)\[([\d,]*)\]', line
    )
    if not match:
      continue
    size = _bytes(match.group(3)) * math.prod(
      int(d) for d in match.group(4).split(',') if d
    )
    if _is_copy(line) and size > copy_bytes:
      copies.append((match.group(1), size))
    for name in _COLLECTIVES:
      if re.search(rf' {name}(-start)?\(', line):
        collectives[name] += size
  entry = text[text.index('ENTRY ') :]
  targets = re.findall(r'custom_call_target="([^"]+)"', text)
  return {
    'entry_kernels': len(re.findall(r' (?:fusion|custom-call)\(', entry)),
    'custom_calls': dict(collections.Counter(targets)),
    'big_copies': copies,
    'collective_bytes': dict(collectives),
    'temp_mb': memory.temp_size_in_bytes / 1e6,
    'argument_mb': memory.argument_size_in_bytes / 1e6,
    'alias_mb': memory.alias_size_in_bytes / 1e6,
  }


def _is_copy(line: str) -> bool:
  if re.search(r' (copy|copy-start)\(', line):
    return True
  calls = r'calls=%?(wrapped_copy|wrapped_transpose|fused_copy|copy_fusion)'
  return ' fusion(' in line and re.search(calls, line) is not None


def _bytes(name: str) -> int:
  """Bytes per element of a type's name in HLO; half bytes count as one."""
  bits = re.search(r'\d+', name)
  return max(1, int(bits.group()) // 8) if bits else 1


@contextlib.contextmanager
def watch_kernels():
  """Collects what the compiler says about Mosaic kernels.

  Yields:
    A dict that is filled at the end: name of each kernel compiled within ->
    `Kernel`.
  """
  found: dict[str, Kernel] = {}
  sys.stdout.flush()
  sys.stderr.flush()
  names = tuple(
    f'MOSAIC_GPU_DUMP_{what}' for what in ('PTX', 'PTXAS', 'RESOURCES')
  )
  before = {name: os.environ.get(name) for name in names}
  os.environ.update(dict.fromkeys(names, '1'))
  # The compiler is native code: its output goes past Python's streams.
  kept = os.dup(1), os.dup(2)
  printed = io.StringIO()
  with (
    tempfile.TemporaryFile() as file,
    contextlib.redirect_stdout(printed),
  ):
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    try:
      yield found
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      for number, old in zip((1, 2), kept, strict=True):
        os.dup2(old, number)
        os.close(old)
      for name, value in before.items():
        if value is None:
          os.environ.pop(name, None)
        else:
          os.environ[name] = value
      file.seek(0)
      text = printed.getvalue() + file.read().decode(errors='replace')
      found.update(parse_kernels(text))


def parse_kernels(text: str) -> dict[str, Kernel]:
  """Kernels in a dump of resources, PTX code and reports of `ptxas`."""
  shared = re.findall(r'^Resources\(smem_scratch_bytes=(\d+)', text, re.M)
  pieces = re.split(r"Compiling entry function '(\w+)'", text)
  names, codes, reports = pieces[1::2], pieces[::2], pieces[2::2]
  if len(shared) != len(names):
    shared = [None] * len(names)
  found = {}
  # The code of a kernel stands before its report.
  for name, size, code, said in zip(
    names, shared, codes[:-1], reports, strict=True
  ):
    spills = re.search(r'(\d+) bytes spill stores, (\d+) bytes spill', said)
    registers = re.search(r'Used (\d+) registers', said)
    matrix = re.findall(r'wgmma\.mma_async\.sync\.aligned\.([\w.]+)', code)
    found[name.removesuffix('_mosaic_gpu_kernel')] = Kernel(
      int(registers.group(1)),
      sum(map(int, spills.groups())),
      None if size is None else int(size),
      dict(collections.Counter(matrix)),
    )
  return found
