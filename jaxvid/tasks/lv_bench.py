"""Measures drift: the Video Drift Errors of LV-Bench for a folder of videos.

Scores what is there, or first generates a video from every script of a set.
Each video's report is kept as it is finished, so a job that is stopped or
killed goes on with the next one.
"""

import dataclasses
import pathlib
from typing import Any

from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation import lv_bench, plots, vde, video_set, workers
from jaxvid.evaluation.scorers import ScorerConfig
from jaxvid.evaluation.video_set import Report
from jaxvid.tasks import tensors
from jaxvid.tasks.progress import progress, say
from jaxvid.tasks.scripts import ScriptConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    videos: folder of the videos, any that FFmpeg reads. With `scripts.source`
      generated videos go there.
    output: folder of the reports; empty: `lv_bench` inside `videos`.
    chunks: N, equal parts of every video.
    masks: folder of `<name of the video>.npy`, bool `[F, H, W]`, True on the
      subject; empty: segmented, see `scorers.segmenter`.
    scorers: what reads the frames.
    scripts: videos to generate first.
    plots: draw scores over time (needs the extra `plots`).
    workers: processes, a video each; -1: one less than there are cores.
  """

  videos: str = ''
  output: str = ''
  chunks: int = vde.CHUNKS
  masks: str = ''
  scorers: ScorerConfig = dataclasses.field(default_factory=ScorerConfig)
  scripts: ScriptConfig = dataclasses.field(default_factory=ScriptConfig)
  plots: bool = True
  workers: int = -1

  def __post_init__(self):
    if self.chunks < 2:
      raise UserError(f'chunks must be at least 2, not {self.chunks}')
    if self.workers < -1:
      raise UserError(f'workers must be >= -1, not {self.workers}')


def run(config: Config) -> None:
  """Generates what is missing, scores every video, writes the tables."""
  if not config.videos:
    raise UserError('which videos? Give --config.videos=FOLDER')
  folder = pathlib.Path(config.videos).expanduser()
  output = pathlib.Path(config.output or folder / 'lv_bench').expanduser()
  if not config.scripts.source:
    video_set.find(folder)  # Says what is wrong before anything is written.
  files.check_writable(output / 'summary.json')
  if config.scripts.source:
    from jaxvid.tasks import scripts

    scripts.generate_all(config.scripts, folder)
  found = [p for p in video_set.find(folder) if output not in p.parents]
  reports = score_all(config, folder, found, output)
  finish(config, reports, output)


def score_all(
  config: Config,
  folder: pathlib.Path,
  videos: list[pathlib.Path],
  output: pathlib.Path,
) -> dict[str, Report]:
  """The reports of all videos by name; finished ones are read back."""
  reports: dict[str, Report | None] = {}
  todo: list[tuple[str, pathlib.Path, dict[str, Any]]] = []
  for path in videos:
    name = path.relative_to(folder).as_posix()
    made = _made(config, path, name)
    reports[name] = None
    old = video_set.read_report(output / f'{name}.json')
    if old and old.get('made') == made:
      reports[name] = old
    else:
      todo.append((name, path, made))
  if len(todo) < len(videos):
    say(f'{len(videos) - len(todo)} of {len(videos)} videos were scored before')
  items = (
    (path, _masks(config, name), config.scorers, config.chunks, tensors.read)
    for name, path, _ in todo
  )
  count = workers.default_count() if config.workers < 0 else config.workers
  count = 0 if len(todo) < 2 else count
  with progress(len(todo), 'scored') as update:
    results = workers.ordered(video_set.score, items, count)
    for i, ((name, _, made), report) in enumerate(
      zip(todo, results, strict=True)
    ):
      path = output / f'{name}.json'
      files.write_json(path, {'video': name, 'made': made, **report})
      reports[name] = video_set.read_report(path)
      update(i + 1, report.get('error', name))
  return {name: report for name, report in reports.items() if report}


def _made(config: Config, path: pathlib.Path, name: str) -> dict[str, Any]:
  """What a report depends on."""
  stat = path.stat()
  masks = _masks(config, name)
  return {
    'bytes': stat.st_size,
    'modified': stat.st_mtime_ns,
    'chunks': config.chunks,
    'masks': masks.stat().st_mtime_ns if masks else 0,
    'scorers': dataclasses.asdict(config.scorers),
  }


def _masks(config: Config, name: str) -> pathlib.Path | None:
  if not config.masks:
    return None
  path = pathlib.Path(config.masks).expanduser() / name
  path = path.with_suffix('.npy')
  return path if path.is_file() else None


def finish(
  config: Config, reports: dict[str, Report], output: pathlib.Path
) -> None:
  """Writes `summary.json`, `scores.csv` and plots; prints a table."""
  good = {n: r for n, r in reports.items() if 'error' not in r}
  result = video_set.summary(reports)
  files.write_json(
    output / 'summary.json',
    {'settings': dataclasses.asdict(config), **result},
  )
  video_set.write_table(output / 'scores.csv', good)
  if config.plots and plots.available():
    video_set.draw(output / 'plots', good)
  elif config.plots:
    say(plots.MISSING)
  show(result)
  print(f'reports: {output}')


def show(result: dict[str, Any]) -> None:
  """The summary as a table on standard output."""
  print(f'{result["videos"]} videos; VDE with linear weights, lower is better')
  print(f'  {"metric":10s} {"lv_bench":>26s} {"paper":>26s}')
  for metric in lv_bench.METRICS:
    cells = (_cell(result[form][metric]['linear']) for form in vde.FORMS)
    print(f'  {metric:10s} ' + ' '.join(f'{cell:>26s}' for cell in cells))
  for name, reason in result['unreadable'].items():
    print(f'  {name}: {reason}')


def _cell(value: dict[str, float]) -> str:
  if not value['count']:
    return 'undefined'
  return f'{value["value"]:.4f} [{value["low"]:.4f}, {value["high"]:.4f}]'
