"""Dispatch between attention backends."""

from collections.abc import Callable, Sequence

import jax

from jaxvid.ops.attention import choose, cudnn, reference, xla
from jaxvid.ops.attention.ranges import Visible
from jaxvid.ops.attention.segments import Segment, join

# Names by which a backend is asked for.
BACKENDS = ('auto', 'reference', 'xla', 'cudnn', 'mosaic', 'mosaic_fp8')


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  length: jax.Array | None = None,
  ranges: jax.Array | None = None,
  mask: jax.Array | None = None,
  more: Sequence[Segment] = (),
  backend: str = 'xla',
) -> jax.Array:
  """Softmax attention over a valid prefix, or over ranges, of the keys.

  Args:
    q: queries `[B, T, N, D]`.
    k: keys `[B, S, N, D]`.
    v: values `[B, S, N, D]`.
    length: number of valid keys, a scalar or one per sample `[B]`; None =
      all S.
    ranges: int32 `[R, T, 2]` (see `ranges.py`) of the keys of all segments,
      in order; None = all keys.
    mask: boolean `[G]` or `[B, G]`, which groups of S / G neighbouring keys
      to attend (G = S: single keys); None = all.
    more: further keys and values to attend besides.
    backend: a name in `BACKENDS`. 'auto' takes the best one for the device
      and the shapes (see `choose.py`); 'mosaic' is our own kernel, for GPUs
      of the Hopper kind, and 'mosaic_fp8' the same with Q K^T in fp8.

  Returns:
    `[B, T, N, D]` in the dtype of `q`.

  Raises:
    ValueError: unknown backend, or the one named cannot do this.
  """
  if backend not in BACKENDS:
    raise ValueError(f'backend {backend!r} is not one of {sorted(BACKENDS)}')
  segments = (Segment(k, v, length, mask), *more)
  if backend == 'auto':
    backend = _auto(q, segments, ranges)
  return function(backend)(q, segments, ranges).astype(q.dtype)


def _auto(q, segments, ranges) -> str:
  kind = choose.gpu_kind()
  if kind is None:
    return 'xla'
  keys = sum(s.k.shape[1] for s in segments)
  names = choose.choose(kind, q.shape[1], keys)
  for name in names:
    if name == 'xla' or not _refuses(name)(q, segments, ranges):
      return name
  return 'xla'


def _refuses(name: str) -> Callable[..., str | None]:
  if name == 'cudnn':
    return cudnn.refuses
  from jaxvid.ops.attention.mosaic import attention as mosaic

  return mosaic.refuses


def function(name: str) -> Callable[..., jax.Array]:
  """A backend as a function of (q, segments, ranges)."""
  match name:
    case 'cudnn':
      return cudnn.attention
    case 'mosaic' | 'mosaic_fp8':
      # Here, because it brings in the kernel language.
      from jaxvid.ops.attention.mosaic import attention as mosaic

      quantized = name == 'mosaic_fp8'
      return lambda *args: mosaic.attention(*args, quantized=quantized)
    case 'reference':
      return _plain(reference.attention)
    case _:
      return _plain(xla.attention)


def _plain(function):
  """A backend of joined keys and masks as one of segments."""

  def attend(q, segments, ranges):
    one = join(segments)
    k, v = one.k, one.v
    if one.scale is not None or k.dtype != v.dtype:
      k, v = one.plain(q.dtype)
    return function(q, k, v, Visible(one.mask, ranges))

  return attend
