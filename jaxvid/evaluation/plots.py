"""Plots of reports, for people who installed the extra `plots`."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation.statistics import Interval

MISSING = "plots need matplotlib: pip install 'jaxvid[plots]'"
Points = Sequence[tuple[float, Interval]]


def available() -> bool:
  """Whether plots can be drawn."""
  try:
    _figure()
  except UserError:
    return False
  return True


def draw(
  path: str | pathlib.Path,
  lines: Mapping[str, Points],
  x: str,
  y: str,
) -> None:
  """Writes lines with bands of their 95 % intervals as a PNG.

  Args:
    path: of the PNG.
    lines: name -> points (place on the axis, interval).
    x: what the axis shows.
    y: the same of the values.

  Raises:
    UserError: matplotlib is missing, or the file cannot be written.
  """
  figure = _figure()(figsize=(6.4, 4.0), layout='constrained')
  axes = figure.add_subplot()
  markers = itertools.cycle('osD^vPX*')
  for (name, points), marker in zip(lines.items(), markers, strict=False):
    shown = [(at, value) for at, value in points if value.count]
    places = [at for at, _ in shown]
    axes.plot(
      places, [v.value for _, v in shown], marker=marker, ms=4, label=name
    )
    low, high = [v.low for _, v in shown], [v.high for _, v in shown]
    axes.fill_between(places, low, high, alpha=0.15)
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.grid(alpha=0.3)
  if len(lines) > 1:
    axes.legend(fontsize='small')
  with files.replacing(path) as file:
    figure.savefig(file, format='png', dpi=120)


def _figure() -> Any:
  """matplotlib's figure, which needs no display."""
  try:
    from matplotlib import figure
  except ImportError:
    raise UserError(MISSING) from None
  return figure.Figure
