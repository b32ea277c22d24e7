"""Work on files that may kill the worker: each is done, or given up alone."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

DIED = 'the decoder crashed on it'


def each[T](
  function: Callable[..., T],
  fixed: Any,
  names: Sequence[str],
  workers: int,
  give_up: Callable[[str], T],
) -> Iterator[T]:
  """`function(fixed, name)` of every name, in the order they are done.

  A worker that dies takes the names that were under way with it; those are
  tried again one at a time, and the one that kills its worker again is given
  up. Other exceptions are raised here.

  Args:
    function: of a module, so that another process finds it.
    fixed: first argument; travels to the processes.
    names: of the files.
    workers: processes; 0 works here.
    give_up: the result for a name that no worker survives.
  """
  if not workers:
    for name in names:
      yield function(fixed, name)
    return
  left = list(names)
  while left:
    done, suspects = set(), []
    for name, future in _batch(function, fixed, left, workers):
      try:
        result = future.result()
      except BrokenProcessPool:
        suspects.append(name)
      else:
        done.add(name)
        yield result
    # Most of the suspects were waiting or in good health; a single worker
    # shows which of the first ones it was.
    left = [name for name in left if name not in done]
    for name in suspects[:workers]:
      left.remove(name)
      try:
        _, future = next(iter(_batch(function, fixed, [name], 1)))
        result = future.result()
      except BrokenProcessPool:
        result = give_up(name)
      yield result


def _batch(function, fixed, names, workers: int) -> Iterator[tuple[str, Any]]:
  """(name, finished future) pairs; broken ones in the order of the names."""
  pool = concurrent.futures.ProcessPoolExecutor(
    workers,
    multiprocessing.get_context('spawn'),
    _start,
    (os.getpid(),),
  )
  try:
    futures = {pool.submit(function, fixed, name): name for name in names}
    broken = []
    for future in concurrent.futures.as_completed(futures):
      if isinstance(future.exception(), BrokenProcessPool):
        broken.append(future)
      else:
        yield futures[future], future
    order = {future: i for i, future in enumerate(futures)}
    for future in sorted(broken, key=order.__getitem__):
      yield futures[future], future
  finally:
    pool.shutdown(cancel_futures=True)


def _start(parent: int) -> None:
  """Ctrl-C is for the parent; without it nobody waits for the work."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
