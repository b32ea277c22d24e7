"""Bundles: all parts of a text-to-video model, found by one name.

A bundle is a folder with `config.json`,

    {"format": "jaxvid-bundle-1", "size": [64, 64],
     "parts": {"dit": "model", "text": "model", "vae": "vae", "tae": "tae",
               "tokenizer": "../shapes_tokenizer"}}

whose parts are folders written by `storage.weights.save`, or a
bundle that names another, its `base`, for the parts that it lacks, or a
folder of Wan2.1-family weights as published. Parts are read when asked for.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import config as config_lib
from jaxvid.convert import checkpoint as published
from jaxvid.convert import specs
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.models import tae, vae
from jaxvid.models.layers import unstack_layers
from jaxvid.ops.quantized import QuantizedKernel
from jaxvid.quantization import tree as quantized
from jaxvid.storage.placing import place_all
from jaxvid.training import checkpoint

FORMAT = 'jaxvid-bundle-1'
PACKAGED = pathlib.Path(__file__).parent.parent / 'weights'
CODECS = {'vae': vae, 'tae': tae}
KINDS = ('dit', 'text', *CODECS)
_WEIGHTS = ('.safetensors', '.pt', '.pth', '.bin')
WAN_SIZE = (480, 832)
# Text rows of every Wan2.1 model, whatever the prompt.
WAN_TEXT_LEN = 512


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A model whose parts are read when asked for.

  Attributes:
    where: for messages.
    kinds: which of `KINDS` are there.
    size: (height, width) of its videos in pixels.
    configure: kind -> config of a part.
    read: kind -> its parameters, unrolled, numpy or jax arrays.
    tokenizer: () -> tokenizer of its text encoder.
    head: () -> what the transformer's weights say of themselves.
  """

  where: str
  kinds: frozenset[str]
  size: tuple[int, int]
  configure: Callable[[str], Any]
  read: Callable[[str], Any]
  tokenizer: Callable[[], Tokenizer]
  head: Callable[[], Mapping[str, Any]] = dict

  def need(self, kind: str) -> str:
    """`kind`, or UserError if the bundle does not hold it."""
    if kind not in self.kinds:
      have = ', '.join(sorted(self.kinds))
      raise UserError(f'{self.where} holds no {kind} (it holds {have})')
    return kind

  def shapes(self, kind: str, dtype: str) -> Any:
    """Shapes of a part's parameters as `place` would leave them."""
    tree = specs.abstract(kind, self.configure(kind))
    tree = jax.tree.map_with_path(
      lambda path, x: jax.ShapeDtypeStruct(x.shape, _type(path, x, dtype)),
      tree,
    )
    if kind != 'dit' or not self.head().get('quantization'):
      return tree

    def eight_bits(name, leaf):
      if not quantized.LAYER.fullmatch(name):
        return leaf
      return jax.ShapeDtypeStruct(leaf.shape, jnp.int8)

    return quantized.replace(tree, eight_bits)

  def place(
    self, kind: str, dtype: str, arrange: Callable[[Any], Any] = dict
  ) -> Any:
    """A part's parameters on the default device, ready to compute in `dtype`.

    Matrices take the type of the computation; what is computed in float32
    anyway (norms, modulation, time) stays float32.

    Args:
      kind: of part.
      dtype: of the computation.
      arrange: what becomes of the tree before it leaves the host.
    """

    def put(path, x):
      if isinstance(x, QuantizedKernel):
        return quantized.placed(x, dtype)
      # A copy, since what was read may be a view of a mapped file; through
      # numpy, since restored arrays are committed to a device, and a program
      # is compiled again for every mixture of committed and other arguments.
      return jnp.array(np.asarray(x), _type(path, x, dtype))

    return place_all(
      put,
      arrange(self.read(self.need(kind))),
      is_leaf=lambda x: isinstance(x, QuantizedKernel),
    )


def _type(path, x, dtype: str) -> jnp.dtype:
  """What a parameter is held in when computing in `dtype`."""
  names = [str(entry.key) for entry in path]
  exact = names[0].startswith(('time_', 'fps_')) or names[-1] not in (
    'kernel',
    'embedding',
  )
  return jnp.dtype('float32' if exact else dtype)


def open_bundle(
  weights: str,
  checkpoint: str = '',
  lora: str = '',
  *,
  use_ema: bool | None = None,
  lora_alpha: float | None = None,
) -> Bundle:
  """Finds a model; reads only what says what it is.

  Args:
    weights: name of a packaged bundle, a folder, or a hub id `owner/name`.
    checkpoint: file whose transformer replaces the folder's own; a path, or
      relative to the folder.
    lora: LoRA file for the transformer, found in the same way.
    use_ema: which of a training checkpoint's transformers; None prefers the
      averaged one.
    lora_alpha: strength of the LoRA; None: as stored, else its rank.

  Raises:
    UserError: nothing there, or not a model.
  """
  folder = find(weights)
  if (folder / 'config.json').is_file():
    head = _json(folder / 'config.json')
    if head.get('format') == FORMAT:
      if checkpoint or lora or (use_ema, lora_alpha) != (None, None):
        raise UserError(
          f'{folder} is a jaxvid bundle; checkpoint, use_ema, lora and '
          'lora_alpha go with folders of Wan2.1-family weights'
        )
      return _derived(folder, head) if 'base' in head else _ours(folder, head)
  if lora_alpha is not None and not lora:
    raise UserError(f'lora_alpha={lora_alpha:g} needs a lora')
  return _wan(folder, checkpoint, lora, use_ema, lora_alpha)


def open_weights(
  folder: str | os.PathLike,
  tokenizer: str,
  size: tuple[int, int],
  others: Mapping[str, str] | None = None,
) -> Bundle:
  """A run or a plain folder of weights, as a model.

  Args:
    folder: workdir of a training run, or written by `storage.weights.save`;
      holds a transformer and, unless `others` does, its text encoder.
    tokenizer: folder of the tokenizer.
    size: (height, width) of the videos in pixels.
    others: kind -> run or folder of weights of a part that is elsewhere: the
      text encoder, an autoencoder.

  Raises:
    UserError: nothing there.
  """
  places = {kind: pathlib.Path(p) for kind, p in (others or {}).items()}
  for kind, place in {'weights': pathlib.Path(folder), **places}.items():
    if not place.expanduser().is_dir():
      raise UserError(f'no {kind} at {str(place)!r}')
  places['tokenizer'] = pathlib.Path(tokenizer)
  parts = {kind: p.expanduser().absolute() for kind, p in places.items()}
  return _ours(
    pathlib.Path(folder).expanduser(),
    {'parts': {'dit': '.', 'text': '.', **parts}, 'size': size},
  )


def find(weights: str) -> pathlib.Path:
  """The folder of a packaged name, a path or a hub id."""
  if not weights:
    raise UserError(f'weights is empty; {_offer()}')
  path = pathlib.Path(weights).expanduser()
  packaged = PACKAGED / weights
  if path.name == weights and (packaged / 'config.json').is_file():
    return packaged
  if path.is_dir():
    return path
  if path.exists():
    raise UserError(f'weights {weights!r} is a file; give its folder')
  if re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', weights):
    return _download(weights)
  raise UserError(f'no weights at {weights!r}; {_offer()}')


def _offer() -> str:
  heads = sorted(PACKAGED.glob('*/config.json'))
  names = [p.parent.name for p in heads if _json(p).get('format') == FORMAT]
  packaged = f'packaged: {", ".join(names)}' if names else 'none are packaged'
  return f'give a folder or a packaged name ({packaged})'


def _download(name: str) -> pathlib.Path:
  """A snapshot of a hub repository, through the optional extra."""
  try:
    import huggingface_hub as hub  # pyright: ignore[reportMissingImports]
  except ImportError:
    raise UserError(
      f'no folder {name!r}; to fetch it from the hub, install the extra: pip '
      "install 'jaxvid[hub]'"
    ) from None
  try:
    return pathlib.Path(hub.snapshot_download(name))
  except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
    reason = str(error).strip().splitlines()[0]
    raise UserError(f'cannot fetch {name!r} from the hub: {reason}') from error


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'cannot read {path}: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'cannot read {path}: it is not a JSON object')
  return value


def _ours(folder: pathlib.Path, head: Mapping[str, Any]) -> Bundle:
  """A bundle of folders written by `storage.weights.save`."""
  try:
    parts = {str(k): folder / str(v) for k, v in head['parts'].items()}
    height, width = map(int, head['size'])
    places = {k: parts[k] for k in KINDS if k in parts and parts[k].is_dir()}
    tokens = parts['tokenizer']
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(
      f'{folder}/config.json is no bundle: parts (with a tokenizer) and size '
      f'are needed ({error})'
    ) from error

  @functools.cache
  def describe(kind: str) -> Mapping[str, Any]:
    head = places[kind] / 'config.json'
    # A training run has its config elsewhere.
    found = head.is_file()
    config = (
      _json(head).get('config')
      if found
      else checkpoint.load_params(places[kind])[0]
    )
    if not isinstance(config, dict) or not isinstance(config.get(kind), dict):
      raise UserError(f'{places[kind]} does not describe a {kind}')
    return config

  @functools.cache
  def configure(kind: str) -> Any:
    return config_lib.from_dict(specs.CONFIGS[kind], describe(kind)[kind])

  def read(kind: str) -> Any:
    _, params = checkpoint.load_params(places[kind])
    # Trained together, kept together: a tree of several models.
    if together := set(params) & set(KINDS):
      if kind not in params:
        have = ', '.join(sorted(together))
        raise UserError(f'{places[kind]} holds no {kind} (it holds {have})')
      params = params[kind]
    if kind in ('dit', 'text'):
      params = unstack_layers(params)
    where, plain = str(places[kind]), params
    if scheme := describe(kind).get('quantization'):
      params = quantized.decode(params, scheme.get('mode', ''))
      plain = quantized.unquantized(params)
    checkpoint.check_tree(plain, specs.abstract(kind, configure(kind)), where)
    return params

  return Bundle(
    where=str(folder),
    kinds=frozenset(places),
    size=(height, width),
    configure=configure,
    read=read,
    tokenizer=lambda: Tokenizer.load(
      tokens, configure('dit').text_len if 'dit' in places else None
    ),
    head=lambda: describe('dit') if 'dit' in places else {},
  )


def _derived(folder: pathlib.Path, head: Mapping[str, Any]) -> Bundle:
  """Some parts of its own, the others those of a `base`: a folder or name."""
  near = folder / str(head['base'])
  base = open_bundle(str(near if near.is_dir() else head['base']))
  parts = {**head.get('parts', {}), 'tokenizer': '.'}
  own = _ours(folder, {'parts': parts, 'size': base.size})

  def holder(kind: str) -> Bundle:
    return own if kind in own.kinds else base

  return Bundle(
    where=str(folder),
    kinds=own.kinds | base.kinds,
    size=base.size,
    configure=lambda kind: holder(kind).configure(kind),
    read=lambda kind: holder(kind).read(kind),
    tokenizer=base.tokenizer,
    head=holder('dit').head,
  )


def _wan(
  folder: pathlib.Path,
  transformer: str,
  lora: str,
  use_ema: bool | None,
  lora_alpha: float | None,
) -> Bundle:
  """A folder of Wan2.1-family weights as published."""

  @functools.cache
  def load(kind: str) -> tuple[Any, Any]:
    if kind != 'dit':
      return published.load_checkpoint(folder, kind)
    path = _beside(folder, transformer) if transformer else folder
    adapter = _beside(folder, lora) if lora else None
    return published.load_checkpoint(
      path, kind, use_ema=use_ema, lora=adapter, lora_alpha=lora_alpha
    )

  if not any(p.suffix in _WEIGHTS for p in folder.rglob('*')):
    raise UserError(
      f'{folder} holds neither a jaxvid bundle (config.json with '
      f'"format": "{FORMAT}") nor Wan2.1 weights (.safetensors, .pth)'
    )
  return Bundle(
    where=str(folder),
    kinds=frozenset(KINDS),
    size=WAN_SIZE,
    configure=lambda kind: load(kind)[0],
    read=lambda kind: load(kind)[1],
    tokenizer=lambda: Tokenizer.load(folder, WAN_TEXT_LEN),
  )


def _beside(folder: pathlib.Path, name: str) -> pathlib.Path:
  """A path as given, or inside the folder."""
  for path in (folder / name, pathlib.Path(name)):
    if path.exists():
      return path
  raise UserError(f'no checkpoint {name!r}, neither there nor in {folder}')


def save_bundle(
  folder: str | os.PathLike,
  parts: Mapping[str, str],
  size: tuple[int, int],
  base: str = '',
) -> None:
  """Writes the `config.json` that makes a folder a bundle.

  Args:
    folder: of the bundle.
    parts: kind or 'tokenizer' -> folder of the part, relative to `folder`.
    size: (height, width) of its videos in pixels.
    base: bundle or folder of weights that has all other parts; relative to
      `folder`, or the name of a packaged one.
  """
  head = {'format': FORMAT, 'parts': dict(parts), 'size': list(size)}
  if base:
    head['base'] = base
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(head, indent=2, sort_keys=True)
  (folder / 'config.json').write_text(text + '\n')
