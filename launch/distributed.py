"""Runs one process of a job on many hosts; arguments as for `jaxvid.main`.

  python launch/distributed.py --config=configs/shapes/teacher.py:base \
    --config.loop.mesh.fsdp=-1

Under SLURM and MPI nothing else is needed. Elsewhere set, for every process,
  COORDINATOR=host:port   the address of process 0
  NUM_PROCESSES=4
  PROCESS_ID=0            0, 1, ...
"""

import os
import sys

import jax

from jaxvid import main


def connect() -> None:
  """Joins the processes; from then on `jax.devices()` are those of all."""
  if 'COORDINATOR' not in os.environ:
    jax.distributed.initialize()
    return
  jax.distributed.initialize(
    coordinator_address=os.environ['COORDINATOR'],
    num_processes=int(os.environ['NUM_PROCESSES']),
    process_id=int(os.environ['PROCESS_ID']),
  )


if __name__ == '__main__':
  connect()
  print(
    f'process {jax.process_index()} of {jax.process_count()}: '
    f'{jax.local_device_count()} of {jax.device_count()} devices',
    flush=True,
  )
  code = main.main()
  jax.distributed.shutdown()
  sys.exit(code)
