"""Programs run as a person would run them."""

import contextlib
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def started(argv: Sequence[str]) -> Iterator[subprocess.Popen]:
  """A running program, output captured as text; killed at the end.

  It hears Ctrl-C even where the tests themselves run in the background and
  were told to ignore it, which children inherit.
  """
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    process = subprocess.Popen(
      argv,
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
  finally:
    signal.signal(signal.SIGINT, before)
  with process:
    try:
      yield process
    finally:
      process.kill()


def misbehave(deadly: set[str], name: str) -> str:
  """Kills the process that it runs in, or gives the name back."""
  if name in deadly:
    os.kill(os.getpid(), signal.SIGKILL)
  return name
