"""Reports of speed: estimates, shares of the limit, a table, a plot."""

import importlib.util
import pathlib
from typing import Any

from jaxvid.evaluation import roofline
from jaxvid.stream.stream import Settings

# Figure, heading and format of the table's columns.
COLUMNS = (
  ('frames_per_s', 'frames/s', '.1f'),
  ('denoise_frames_per_s', 'ticks only', '.1f'),
  ('predicted_frames_per_s', 'predicted', '.1f'),
  ('limit_frames_per_s', 'limit', '.1f'),
  ('share_of_limit', 'share', '.0%'),
  ('forward_ms', 'forward ms', '.1f'),
  ('decode_ms', 'decode ms', '.1f'),
  ('in_flight_ms', 'in-flight ms', '.1f'),
  ('chunk_p99_ms', 'p99 ms', '.1f'),
  ('p99_to_p50', 'p99/p50', '.2f'),
  ('first_frame_s', 'first s', '.3f'),
  ('clip_s', 'clip s', '.2f'),
  ('switch_to_frames_ms', 'switch ms', '.0f'),
  ('peak_device_gb', 'GB', '.1f'),
  ('compile_s', 'compile s', '.1f'),
  ('warm_start_s', 'warm s', '.1f'),
)


def estimates(
  settings: Settings,
  decoder: str,
  size: str,
  device_kind: str,
  precision: roofline.Precision = 'bfloat16',
) -> dict[str, Any]:
  """Limit and prediction of a steady chunk; empty for unknown cards.

  Args:
    settings: of the stream.
    decoder: 'tae' or 'vae' of Wan2.1.
    size: 'tiny' has decoders of its own, of which nothing is predicted.
    device_kind: as jax calls the device.
    precision: of the transformer.
  """
  card = roofline.card_of(device_kind)
  if card is None or size == 'tiny':
    return {}
  figures: dict[str, Any] = {'card': card.name}
  frames = 4 * settings.memory.chunk
  for name, limit in (('limit', True), ('predicted', False)):
    got = roofline.estimate(
      settings.config,
      settings.memory,
      settings.schedule,
      decoder,
      card,
      limit=limit,
      precision=precision,
    )
    figures |= {
      f'{name}_forward_ms': 1e3 * got.forward,
      f'{name}_decode_ms': 1e3 * got.decode,
      f'{name}_frames_per_s': frames / got.chunk,
      f'{name}_denoise_frames_per_s': frames / got.ticks,
    }
  work = roofline.chunk_work(settings.config, settings.memory)
  figures['forward_operations'] = work.operations
  figures['datasheet_operations_per_s'] = card.datasheet
  return figures


def shares(row: dict[str, Any]) -> dict[str, float]:
  """Measured by possible, where both are known."""
  found = {}
  pairs = {
    'share_of_limit': ('frames_per_s', 'limit_frames_per_s'),
    'share_of_limit_denoise': (
      'denoise_frames_per_s',
      'limit_denoise_frames_per_s',
    ),
    'measured_to_predicted': ('frames_per_s', 'predicted_frames_per_s'),
  }
  for name, (measured, possible) in pairs.items():
    if measured in row and possible in row:
      found[name] = row[measured] / row[possible]
  if 'forward_operations' in row and 'forward_ms' in row:
    rate = row['forward_operations'] / (1e-3 * row['forward_ms'])
    found['share_of_datasheet'] = rate / row['datasheet_operations_per_s']
  return found


def table(report: dict[str, Any]) -> str:
  """The rows of a report for people, in Markdown."""
  rows = report['rows']
  used = [c for c in COLUMNS if any(c[0] in row for row in rows)]
  machine = report['machine']
  lines = [
    f'{machine["device"]}, jax {machine["jax"]}, {machine["date"]}',
    '',
    '| system | ' + ' | '.join(heading for _, heading, _ in used) + ' |',
    '|---' * (1 + len(used)) + '|',
  ]
  for row in rows:
    cells = [
      format(row[key], style) if key in row else '-' for key, _, style in used
    ]
    lines.append(f'| {row["name"]} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def plot(report: dict[str, Any], output: pathlib.Path) -> str:
  """Draws frames/s beside prediction and limit; says where, or why not."""
  if importlib.util.find_spec('matplotlib') is None:
    return "no plot: matplotlib is missing (pip install 'jaxvid[plots]')"
  rows = [row for row in report['rows'] if 'frames_per_s' in row]
  if not rows:
    return 'no plot: no steady stream was timed'
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 1.5 + 0.6 * len(rows)), layout='constrained')
  axes = figure.subplots()
  places = range(len(rows))
  axes.barh(
    places, [row['frames_per_s'] for row in rows], 0.5, label='measured'
  )
  for key, marker in (('predicted', '|'), ('limit', 'x')):
    name = f'{key}_frames_per_s'
    points = [(row[name], i) for i, row in enumerate(rows) if name in row]
    if points:
      axes.scatter(
        *zip(*points, strict=True), marker=marker, s=90, c='k', label=key
      )
  axes.set_yticks(places, [row['name'] for row in rows])
  axes.invert_yaxis()
  axes.set_xlabel(f'frames/s on the host, {report["machine"]["device"]}')
  axes.legend()
  path = output.with_suffix('.png')
  figure.savefig(path, dpi=120)
  return f'plot: {path}'
