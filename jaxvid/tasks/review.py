"""A local page on which annotators judge clips, chunks and captions."""

import dataclasses

from jaxvid.data.videos import review_server
from jaxvid.errors import UserError
from jaxvid.tasks.progress import say


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    target: working folder of configs/videos/folder.py.
    annotator: who judges; empty: print how annotators agree, and stop.
    port: of the page on this machine.
  """

  target: str
  annotator: str = ''
  port: int = 8420

  def __post_init__(self):
    if not 0 <= self.port < 65536:
      raise UserError(f'port must be from 0 to 65535, not {self.port}')


def run(config: Config) -> None:
  """Serves the page until Ctrl-C, or prints the agreement."""
  if config.annotator:
    state = review_server.Review(config.target, config.annotator)
    with review_server.server(state, config.port) as server:
      say(f'http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)')
      server.serve_forever(0.2)
  rows = review_server.agreement_rows(config.target)
  if not rows:
    print('no clip was judged by two annotators')
  for row in rows:
    kappa = 'undefined' if row['kappa'] is None else f'{row["kappa"]:.3f}'
    print(
      f'{row["one"]}, {row["two"]}: {row["kind"]:8s} {row["items"]:5d} items, '
      f'{100 * row["share"]:.1f} % equal, kappa {kappa}'
    )
