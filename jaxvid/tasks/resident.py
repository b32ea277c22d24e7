"""Memory that this process holds, as Linux counts it."""

import ctypes
import pathlib

_PROCESS = pathlib.Path('/proc/self')


def held() -> tuple[float, float] | None:
  """Resident memory in MB, now and at the highest; None if not to be had."""
  try:
    lines = (_PROCESS / 'status').read_text().splitlines()
  except OSError:
    return None
  values = {line.split()[0]: line.split()[1] for line in lines if 'kB' in line}
  return tuple(int(values[name]) / 1024 for name in ('VmRSS:', 'VmHWM:'))


def start_anew() -> bool:
  """From here on the highest counts anew; whether the system can do that.

  What is free goes back to the system first: the allocator keeps what
  compilation used, which differs from run to run and would hide the rest.
  """
  try:
    ctypes.CDLL(None).malloc_trim(0)
  except (AttributeError, OSError):
    pass  # Another allocator than glibc's; then more noise remains.
  try:
    (_PROCESS / 'clear_refs').write_text('5')
  except OSError:
    return False
  return True
