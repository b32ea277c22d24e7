"""Makes a bundle, found by one name, of parts that were trained apart."""

import dataclasses
import os
import pathlib

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    target: folder of the bundle; its `config.json` is written.
    dit: folder of weights, or training run, of the transformer.
    text: the same of the text encoder; empty: `dit`.
    vae: of the VAE; empty: none.
    tae: of the fast decoder; empty: none.
    tokenizer: folder of the tokenizer.
    size: (height, width) of the videos in pixels.
  """

  target: str
  dit: str
  tokenizer: str
  size: tuple[int, int]
  text: str = ''
  vae: str = ''
  tae: str = ''


def run(config: Config) -> None:
  """Writes the bundle, after finding every part, and prints its folder."""
  from jaxvid.tasks import bundle

  places = {
    'dit': config.dit,
    'text': config.text or config.dit,
    'vae': config.vae,
    'tae': config.tae,
    'tokenizer': config.tokenizer,
  }
  target = pathlib.Path(config.target).expanduser()
  parts = {}
  for kind, place in places.items():
    path = pathlib.Path(place).expanduser()
    if not place:
      continue
    if not path.is_dir():
      raise UserError(f'no {kind} at {place!r}')
    # So that the whole tree can move.
    parts[kind] = pathlib.Path(os.path.relpath(path, target)).as_posix()
  bundle.save_bundle(target, parts, config.size)
  try:
    opened = bundle.open_bundle(str(target))
    for kind in sorted(opened.kinds):
      opened.configure(kind)
    opened.tokenizer()
  except UserError:
    (target / 'config.json').unlink()  # Half a bundle is none.
    raise
  print(f'{target} ({", ".join(sorted(parts))})')
