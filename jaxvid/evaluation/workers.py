"""Reads videos in processes of their own while the next ones are made."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def default_count() -> int:
  """All cores but the one that makes the videos; 1 at least, 16 at most."""
  return max(1, min(16, (os.cpu_count() or 1) - 1))


def ordered[T](
  function: Callable[..., T],
  items: Iterable[tuple[Any, ...]],
  workers: int,
  ahead: int = 32,
) -> Iterator[T]:
  """`function(*item)` of every item, in order.

  Args:
    function: of a module, so that another process finds it; its arguments
      and its result travel between processes.
    items: drawn one by one, and only so far before the results.
    workers: processes; 0 calls the function here.
    ahead: items that may wait; bounds the memory.
  """
  if not workers:
    for item in items:
      yield function(*item)
    return
  waiting: collections.deque = collections.deque()
  pool = concurrent.futures.ProcessPoolExecutor(
    workers, multiprocessing.get_context('spawn'), _start
  )
  try:
    for item in items:
      waiting.append(pool.submit(function, *item))
      while waiting and (len(waiting) > ahead or waiting[0].done()):
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def _start() -> None:
  # Ctrl-C is for the process that gives out the work.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
