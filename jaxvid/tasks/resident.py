"""Memory that this process holds, as Linux counts it."""

import ctypes
import pathlib

_PROCESS = pathlib.Path('/proc/self')
# Parameters of glibc's mallopt (malloc.h), and what a stream wants of them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_SETTINGS = {
  _M_ARENA_MAX: 1,
  _M_MMAP_THRESHOLD: 64 * 1024,
  _M_TRIM_THRESHOLD: 128 * 1024,
}


def held() -> tuple[float, float] | None:
  """Resident memory in MB, now and at the highest; None if not to be had."""
  try:
    lines = (_PROCESS / 'status').read_text().splitlines()
  except OSError:
    return None
  values = {line.split()[0]: line.split()[1] for line in lines if 'kB' in line}
  return tuple(int(values[name]) / 1024 for name in ('VmRSS:', 'VmHWM:'))


def settle() -> bool:
  """Gives memory back as soon as it is free, from now on, in this process.

  Left alone, glibc keeps what it once needed in one heap per thread and moves
  its thresholds with what it sees, so that a stream holds a tenth more or less
  by chance. Whether the allocator is one that can be told.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return False
  return all(mallopt(name, value) == 1 for name, value in _SETTINGS.items())


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
