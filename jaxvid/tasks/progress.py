"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Update = Callable[[int, str], None]


def say(text: str) -> None:
  """One line on stderr."""
  print(f'jaxvid: {text}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int, unit: str, every: float = 2.0) -> Iterator[Update]:
  """Yields `update(done, note)`.

  Args:
    total: how many units there will be.
    unit: their name.
    every: seconds between plain lines.
  """
  if sys.stderr.isatty():
    from rich import console
    from rich import progress as bars

    columns = (
      bars.BarColumn(bar_width=24),
      bars.MofNCompleteColumn(),
      bars.TextColumn(unit + '  {task.description}'),
      bars.TimeRemainingColumn(compact=True),
    )
    with bars.Progress(*columns, console=console.Console(stderr=True)) as bar:
      row = bar.add_task('', total=total)
      yield lambda done, note: bar.update(row, completed=done, description=note)
    return

  shown = -every

  def line(done: int, note: str) -> None:
    nonlocal shown
    now = time.monotonic()
    if done >= total or now - shown >= every:
      say(f'{done}/{total} {unit}  {note}')
      shown = now

  yield line
