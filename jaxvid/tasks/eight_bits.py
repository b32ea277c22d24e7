"""A model whose transformer goes into 8 bits as it is loaded."""

import dataclasses
from typing import Any

from jaxvid.errors import UserError
from jaxvid.quantization import tree
from jaxvid.quantization.kernels import Scheme
from jaxvid.tasks.bundle import Bundle


def quantized(bundle: Bundle, mode: str) -> Bundle:
  """The model in a precision, which it may have already.

  Args:
    bundle: any.
    mode: `int8`; `w8a8`, a scale for every token; or `fp8`, for a bundle that
      was calibrated. Empty: as it is.

  Raises:
    UserError: it is in another precision, or has to be calibrated first.
  """
  found = bundle.head().get('quantization') or {}
  if not mode or found.get('mode') == mode:
    return bundle
  if found:
    raise UserError(
      f'{bundle.where} is in {found.get("mode")}, not {mode}; name the weights '
      'that it was made of'
    )
  scheme = Scheme(mode, 'token' if mode == 'w8a8' else 'static')
  if scheme.calibrated:
    raise UserError(
      f'{mode} needs ranges of inputs: write a calibrated bundle with '
      f'configs/quantize.py:{mode}, then give it as weights'
    )

  def read(kind: str) -> Any:
    params = bundle.read(kind)
    return tree.quantize(params, scheme) if kind == 'dit' else params

  head = {**bundle.head(), 'quantization': dataclasses.asdict(scheme)}
  return dataclasses.replace(bundle, read=read, head=lambda: head)
