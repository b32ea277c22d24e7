"""A quick start: the chunk function, traced once and kept beside a checkpoint.

`ahead` stores the traced and lowered function (StableHLO, by `jax.export`),
one file per kind of chunk. That is portable, and reading it executes nothing,
unlike a pickled executable. Machine code and the choices of kernels are kept
by XLA's own cache on disk, which `main` turns on.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.models.fused import fuse
from jaxvid.stream import stream
from jaxvid.stream.stream import Settings, State, Ticks
from jaxvid.tasks.progress import say

if TYPE_CHECKING:
  from jaxvid.tasks import generate

FORMAT = 'jaxvid-stream-1'
Step = Callable[[Any, State, Ticks], tuple[State, jax.Array]]
# Calls of other libraries in the program, which jax does not promise to keep
# stable for years; the version of jax is checked instead.
_CALLS = (
  '__cudnn$fmhaSoftmax',
  '__cudnn$fmhaSoftmaxF8',
  'mosaic_gpu',
  'mosaic_gpu_v2',
)


def quickened(
  config: 'generate.Config', settings: Settings, params: Any
) -> tuple[Settings, Any]:
  """Settings and parameters of the same stream, as fast as it goes."""
  on_gpu = jax.default_backend() == 'gpu'
  if config.fast:
    params = fuse(settings.config, params, jnp.dtype(settings.dtype))
  settings = dataclasses.replace(
    settings,
    fused=config.fast,
    backend='auto' if on_gpu else settings.backend,
    deferred=config.deferred and settings.schedule.extra is not None,
  )
  return settings, params


def folder(weights: str) -> pathlib.Path:
  """Where the exported streams of some weights are kept.

  Beside weights that are a folder; for weights that ship with the library or
  come from a hub, in the user's cache.
  """
  path = pathlib.Path(weights).expanduser()
  if path.is_dir():
    return path
  name = re.sub(r'[^\w.-]+', '_', weights) or 'weights'
  return user_cache() / 'exported' / name


def user_cache() -> pathlib.Path:
  """The library's folder among the user's caches."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'jaxvid'


def ahead(
  settings: Settings,
  params: Any,
  state: State,
  every: Sequence[Ticks],
  folder: pathlib.Path,
) -> Step:
  """The chunk function, read from `folder` or traced and written there.

  Args:
    settings: of the stream.
    params: the transformer's parameters.
    state: a stream like those that will be stepped.
    every: one chunk's ticks for each count of ticks.
    folder: of the checkpoint; programs go into its folder `streams`.

  Returns:
    `step(params, state, ticks)`; the state is donated. What was not prepared
    is traced and compiled when it comes, as always.
  """
  known: dict[Any, Step] = {}
  states = [state]
  if settings.deferred and state.pending is None:
    shape = stream.latent_shape(settings, state)
    pending = jax.ShapeDtypeStruct(shape, jnp.dtype(settings.dtype))
    states.append(state.replace(pending=pending))
  for ticks in every:
    for before in states:
      known[_kind(before, ticks)] = _program(
        settings, params, before, ticks, folder / 'streams'
      )
  plain = stream.jitted_step(settings)

  def step(params, state, ticks):
    run = known.get(_kind(state, ticks), plain)
    return run(params, state, ticks)

  return step


def _kind(state: State, ticks: Ticks):
  return len(ticks.t), state.pending is None


def _program(
  settings: Settings, params, state, ticks: Ticks, folder: pathlib.Path
) -> Step:
  """One kind of chunk; says in one line what stood in the way, if anything."""
  arguments = _plain((params, state, ticks))
  leaves, tree = jax.tree.flatten(arguments)
  about = _about(settings, leaves, tree)
  name = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
  path = folder / f'{name}.stablehlo'
  try:
    exported = _read(path, about)
    if exported is None:
      exported = _export(settings, leaves, tree)
      _write(path, about, exported)
  except UserError as error:
    say(f'start-up: {error}; compiling without an exported stream')
    return stream.jitted_step(settings)
  key = jax.random.key_impl(state.key)
  after = state.replace(
    pending=state.key if settings.deferred else None  # any leaf
  )
  _, out_tree = jax.tree.flatten((_plain(after), 0))

  # Not one of the arguments' leaves but the whole state is donated.
  @functools.partial(
    jax.jit,
    donate_argnums=1,
    compiler_options=stream.compiler_options(jax.default_backend()),
  )
  def call(params, state, ticks):
    return exported.call(*jax.tree.leaves((params, state, ticks)))

  def step(params, state, ticks):
    out = call(*_plain((params, state, ticks)))
    state, latents = jax.tree.unflatten(out_tree, out)
    return state.replace(key=jax.random.wrap_key_data(state.key, impl=key)), (
      latents
    )

  return step


def _plain(tree: Any) -> Any:
  """Typed keys as the numbers they are."""

  def leaf(x):
    typed = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if typed else x

  return jax.tree.map(leaf, tree)


def _about(settings: Settings, leaves, tree) -> dict[str, str]:
  """All that a stored program depends on."""
  device = jax.devices()[0]
  shapes = [f'{x.dtype}{list(x.shape)}' for x in leaves]
  digest = hashlib.sha256('|'.join([*shapes, str(tree)]).encode())
  return {
    'format': FORMAT,
    'jax': jax.__version__,
    'platform': device.platform,
    'device': device.device_kind,
    'settings': repr(settings),
    'arguments': digest.hexdigest(),
  }


def _export(settings: Settings, leaves, tree):
  export = _library()

  def flat(*leaves):
    params, state, ticks = jax.tree.unflatten(tree, leaves)
    key = jax.random.wrap_key_data(state.key)
    state, latents = stream.step(
      settings, params, state.replace(key=key), ticks
    )
    return jax.tree.leaves(_plain((state, latents)))

  checks = [export.DisabledSafetyCheck.custom_call(name) for name in _CALLS]
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
  return export.export(jax.jit(flat), disabled_checks=checks)(*shapes)


def _library():
  try:
    import flatbuffers  # noqa: F401
  except ImportError:
    raise UserError('the package flatbuffers is missing') from None
  from jax import export

  return export


def _read(path: pathlib.Path, about: dict[str, str]):
  """The stored program; None where there is none yet."""
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from None
  try:
    (size,) = struct.unpack_from('<I', data)
    stored = json.loads(data[4 : 4 + size])
    if stored != about:
      wrong = [name for name in about if stored.get(name) != about[name]]
      raise ValueError(f'made for another {wrong[0]}')
    return _library().deserialize(bytearray(data[4 + size :]))
  except UserError:
    raise
  except Exception as error:  # Damaged files fail in many ways.
    line = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(f'{path} cannot be used ({line})') from None


def _write(path: pathlib.Path, about: dict[str, str], exported) -> None:
  head = json.dumps(about).encode()
  with files.replacing(path) as file:
    file.write(struct.pack('<I', len(head)) + head + exported.serialize())
