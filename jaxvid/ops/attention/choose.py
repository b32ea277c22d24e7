"""Which backend `auto` means, by device and shape.

A row enters the table when a backend was timed faster than what stands
there, on that device, at that shape (`benchmarks/attention.py`). No GPU has
been measured yet: every GPU gets cuDNN where it can, else plain XLA.
"""

import jax

# (start of the device kind, shape class) -> backends, best first. '' is any
# GPU; what a backend refuses goes to the next one.
TABLE: dict[tuple[str, str], tuple[str, ...]] = {
  ('', 'small'): ('xla',),
  ('', 'text'): ('cudnn', 'xla'),
  ('', 'window'): ('cudnn', 'xla'),
  ('', 'clip'): ('cudnn', 'xla'),
}


def shape_class(queries: int, keys: int) -> str:
  """Names the shapes that a choice is made for.

  Returns:
    'small' (T x S below 2^16: toy models), 'text' (at most 1024 keys), 'clip'
    (as many queries as keys: whole clips, training) or 'window' (a chunk
    against a memory).
  """
  if queries * keys < 1 << 16:
    return 'small'
  if keys <= 1024:
    return 'text'
  return 'clip' if queries == keys else 'window'


def choose(kind: str, queries: int, keys: int) -> tuple[str, ...]:
  """Backends to try in turn on a GPU.

  Args:
    kind: of the device, as `jax.Device.device_kind` says.
    queries: T.
    keys: S, of all segments.
  """
  name = shape_class(queries, keys)
  rows = [k for k in TABLE if k[1] == name and kind.startswith(k[0])]
  return TABLE[max(rows, key=lambda row: len(row[0]))]


def gpu_kind() -> str | None:
  """Kind of the GPU that programs are traced for; None = no GPU."""
  device = jax.config.jax_default_device or jax.devices()[0]
  if isinstance(device, str):  # A platform's name.
    device = jax.devices(device)[0]
  return device.device_kind if device.platform == 'gpu' else None
