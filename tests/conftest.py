"""Settings for every test: exact products on the CPU, no key used twice."""

import os

# Before jax is imported. One thread per process: the tests run in parallel.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=8',
)
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Most of the time goes into compiling programs that run once.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

# A test compiles what it tests.
os.environ.setdefault('JAXVID_CACHE', 'off')

import jax
import pytest

jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture
def compilations():
  """Call it to begin: the list that it returns grows with every program."""
  durations = []

  def listen(event, duration, **_):
    if 'backend_compile' in event:
      durations.append(duration)

  def begin():
    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations

  yield begin
  jax.monitoring.unregister_event_duration_listener(listen)
