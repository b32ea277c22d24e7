"""What a stream gives back to the system."""

import os
import subprocess
import sys

import pytest

from jaxvid.tasks import resident

# Frees 100 MB in pieces between which something stays.
_CHURN = """
import sys
from jaxvid.tasks import resident
if sys.argv[1] == 'settle':
  assert resident.settle()
before = resident.held()[0]
pairs = [(bytearray(100_000), bytearray(700)) for _ in range(1000)]
kept = [small for _, small in pairs]
del pairs
print(resident.held()[0] - before)
"""


def _left(how: str) -> float:
  command = [sys.executable, '-c', _CHURN, how]
  tuned = 'GLIBC_TUNABLES'  # Huge pages, for one, are given back otherwise.
  plain = {name: x for name, x in os.environ.items() if name != tuned}
  out = subprocess.run(
    command, capture_output=True, text=True, check=True, env=plain
  )
  return float(out.stdout)


@pytest.mark.skipif(
  resident.held() is None or not sys.platform.startswith('linux'),
  reason='the system does not tell what a process holds',
)
def test_a_settled_process_gives_back_what_is_free():
  assert _left('settle') < 10 < 50 < _left('leave')
