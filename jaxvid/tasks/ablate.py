"""Ablations: trainings, arms measured on them, and what was published.

All of it is data. Trainings and measurements become stages of one chain, so
an ablation is stopped and resumed anywhere, and a folder may be shared by
several: what another one has trained or measured with the very same settings
is not made again. The report is written at the end, or from what is there.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from jaxvid.config import nearest
from jaxvid.data import files
from jaxvid.errors import UserError
from jaxvid.evaluation import comparison, measures, plots, report
from jaxvid.evaluation.comparison import Claim, Measured
from jaxvid.evaluation.statistics import Interval
from jaxvid.tasks import chain
from jaxvid.tasks.chain import Stage
from jaxvid.tasks.progress import say
from jaxvid.training.report import read_scalars


@dataclasses.dataclass(frozen=True)
class Training:
  """A student, once per seed.

  Attributes:
    name: of the training; its runs are `<folder>/<name>_s<seed>`.
    config: file, with its argument.
    overrides: settings as typed, without `--config.`.
    seeds: of parameters that start afresh, data order and noise.
    optional: it may fail, as one does that is expected to diverge.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0,)
  optional: bool = False

  def __post_init__(self):
    if not self.seeds or len(set(self.seeds)) < len(self.seeds):
      raise UserError(f'training {self.name!r} needs different seeds')


@dataclasses.dataclass(frozen=True)
class Arm:
  """One row of a table: a student, and how it is sampled.

  Attributes:
    name: of the row.
    training: whose student; empty: the bundle that `evaluate` names.
    evaluate: overrides of the measurement, without `--config.`.
    x: place on the axis of a sweep.
    line: which sweep, if there are several.
    published: the paper's own figures.
  """

  name: str
  training: str = ''
  evaluate: tuple[str, ...] = ()
  x: float | None = None
  line: str = ''
  published: str = ''


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    name: of the ablation, and of its report.
    title: of its report.
    folder: of all runs, measurements and reports.
    trainings: students to train.
    arms: rows of the table.
    claims: published orderings.
    columns: measures in the table.
    curves: measures plotted by chunk.
    curve_arms: of these arms; empty: of all.
    losses: scalars of the trainings, plotted by step.
    axis: what `x` of the arms is; empty: no sweep.
    train: overrides of every training.
    evaluation: config file of the measurements.
    evaluate: overrides of every measurement.
    clips: captions per measurement.
    seeds: only trainings with these seeds; empty: all.
    report: write the report from what is there, and train nothing.
    start, stop, changed, explain: see `chain.Config`.
  """

  name: str
  folder: str
  arms: tuple[Arm, ...]
  title: str = ''
  trainings: tuple[Training, ...] = ()
  claims: tuple[Claim, ...] = ()
  columns: tuple[str, ...] = ('right', 'shape', 'motion', 'pace')
  curves: tuple[str, ...] = ()
  curve_arms: tuple[str, ...] = ()
  losses: tuple[str, ...] = ()
  axis: str = ''
  train: tuple[str, ...] = ()
  evaluation: str = 'configs/evaluate/shapes.py'
  evaluate: tuple[str, ...] = ()
  clips: int = 256
  seeds: tuple[int, ...] = ()
  report: bool = False
  start: str = ''
  stop: str = ''
  changed: Literal['restart', 'resume'] = 'restart'
  explain: bool = False

  def __post_init__(self):
    for kind in ('arms', 'trainings'):
      names = [item.name for item in getattr(self, kind)]
      if len(set(names)) < len(names):
        raise UserError(f'{kind} need different names, not {", ".join(names)}')
    known = [training.name for training in self.trainings]
    for arm in self.arms:
      if arm.training and arm.training not in known:
        near = nearest(arm.training, known)
        raise UserError(
          f'arm {arm.name!r}: no training {arm.training!r}.{near}'
        )
    names = [arm.name for arm in self.arms]
    asked = [(claim.text, (*claim.plus, *claim.minus)) for claim in self.claims]
    for what, chosen in [*asked, ('curve_arms', self.curve_arms)]:
      for name in chosen:
        if name not in names:
          near = nearest(name, names)
          raise UserError(f'{what}: no arm {name!r}.{near}')
    for metric in self.columns:
      comparison.check_metric(metric)
    for name in self.curves:
      if name not in measures.CHUNK:
        raise UserError(f'curves: no measure {name!r} of a chunk')

  def seeds_of(self, arm: Arm) -> tuple[int, ...]:
    """Seeds of the trainings an arm is measured on; (0,) for a bundle."""
    for training in self.trainings:
      if training.name == arm.training:
        return self.wanted(training)
    return (0,)

  def wanted(self, training: Training) -> tuple[int, ...]:
    """Seeds of a training that this run asks for."""
    wanted = self.seeds or training.seeds
    return tuple(seed for seed in training.seeds if seed in wanted)


def run(config: Config) -> None:
  """Trains and measures what is not done yet, then reports."""
  stages = list(stages_of(config))
  if not config.report:
    chain.run(
      chain.Config(
        workdir=f'{config.folder}/stages',
        stages=tuple(stages),
        start=config.start,
        stop=config.stop,
        changed=config.changed,
        explain=config.explain,
      )
    )
  if config.explain:
    count = sum(len(config.wanted(t)) for t in config.trainings)
    print(
      f'{config.name}: {count} trainings, {len(stages) - count} measurements '
      f'of {config.clips} clips, {len(config.arms)} arms, '
      f'{len(config.claims)} published orderings'
    )
    return
  print(write_report(config))


def stages_of(config: Config) -> Iterator[Stage]:
  """Every training, then every measurement; each is there once."""
  for training in config.trainings:
    for seed in config.wanted(training):
      workdir = _run(config, training.name, seed)
      yield Stage(
        name=f'train_{training.name}_s{seed}',
        config=training.config,
        overrides=(
          *config.train,
          *training.overrides,
          f'loop.seed={seed}',
          f'workdir={workdir}',
          f'export={workdir}/weights',
          'export_dtype=float32',
        ),
        outputs=(workdir,),
        needs=(),
        optional=training.optional,
      )
  made = set()
  for arm in config.arms:
    for seed in config.seeds_of(arm):
      stage = measurement(config, arm, seed)
      if stage.name not in made:
        made.add(stage.name)
        yield stage


def measurement(config: Config, arm: Arm, seed: int) -> Stage:
  """The stage that measures an arm; named after all that it depends on."""
  overrides = [*config.evaluate, *arm.evaluate]
  needs, where = (), 'bundle'
  if arm.training:
    where = f'{arm.training}_s{seed}'
    needs = (f'train_{where}',)
    weights = f'{_run(config, arm.training, seed)}/weights'
    overrides.append(f'stream.weights={weights}')
  overrides += [f'clips={config.clips}', 'details=true']
  text = json.dumps([config.evaluation, overrides])
  digest = hashlib.sha256(text.encode()).hexdigest()[:10]
  output = f'{config.folder}/measured/{where}_{digest}.json'
  return Stage(
    name=f'measure_{where}_{digest}',
    config=config.evaluation,
    overrides=(*overrides, f'output={output}'),
    outputs=(output,),
    needs=needs,
  )


def _run(config: Config, training: str, seed: int) -> str:
  return f'{config.folder}/{training}_s{seed}'


def measured(config: Config) -> list[Measured]:
  """What there is of every arm."""
  arms = []
  for arm in config.arms:
    found = {}
    for seed in config.seeds_of(arm):
      output = measurement(config, arm, seed).outputs[0]
      if (loaded := comparison.load(output)) is not None:
        found[seed] = loaded
    arms.append(Measured(arm.name, found, arm.x, arm.line, arm.published))
  return arms


def write_report(config: Config) -> pathlib.Path:
  """Writes Markdown, JSON and plots; returns the Markdown's path."""
  folder = pathlib.Path(config.folder) / 'reports'
  arms = measured(config)
  by_name = {arm.name: arm for arm in arms}
  verdicts = [comparison.judge(claim, by_name) for claim in config.claims]
  pictures = draw(config, arms, folder) + draw_losses(config, folder)
  text = report.markdown(
    config.title or config.name, arms, config.columns, verdicts, pictures
  )
  target = folder / f'{config.name}.md'
  facts = {
    'settings': dataclasses.asdict(config),
    'arms': {arm.name: _facts(config, arm) for arm in arms},
    'verdicts': [
      {
        'published': verdict.claim.text,
        'answer': verdict.answer,
        'difference': verdict.difference._asdict(),
        'by_seed': verdict.seeds,
      }
      for verdict in verdicts
    ],
  }
  files.write_json(target.with_suffix('.json'), facts)
  with files.replacing(target) as file:
    file.write(text.encode())
  missing = [arm.name for arm in arms if not arm.reports]
  if missing:
    say(f'not measured: {", ".join(missing)}')
  return target


def _facts(config: Config, arm: Measured) -> dict[str, Any]:
  if not arm.reports:
    return {}
  first = next(iter(arm.reports.values()))
  return {
    'seeds': list(arm.reports),
    'clips': first['clips'],
    'ticks_per_clip': first['ticks_per_clip'],
    'calls_per_clip': first['calls_per_clip'],
    **{n: comparison.interval(arm, n)._asdict() for n in config.columns},
  }


def draw(
  config: Config, arms: Sequence[Measured], folder: pathlib.Path
) -> list[str]:
  """Plots of sweeps and of curves by chunk; names of the files."""
  arms = [arm for arm in arms if arm.reports]
  wanted = config.curves or config.axis
  if not wanted or not arms:
    return []
  if not plots.available():
    say(plots.MISSING)
    return []
  names, by_name = [], {arm.name for arm in arms}
  for name in config.columns if config.axis else ():
    sweeps: dict[str, list] = {}
    for arm in arms:
      if arm.x is not None:
        point = arm.x, comparison.interval(arm, name)
        sweeps.setdefault(arm.line, []).append(point)
    lines = {line: sorted(points) for line, points in sweeps.items()}
    names.append(f'{config.name}_{name.replace("@", "_")}.png')
    plots.draw(folder / names[-1], lines, config.axis, name)
  for name in config.curves:
    lines = {
      arm.name: list(enumerate(comparison.curve(arm, name)))
      for arm in arms
      if arm.name in (config.curve_arms or by_name)
      and name in next(iter(arm.reports.values()))['values']['chunks']
    }
    names.append(f'{config.name}_{name}_by_chunk.png')
    plots.draw(folder / names[-1], lines, 'chunk', name)
  return names


def draw_losses(config: Config, folder: pathlib.Path) -> list[str]:
  """Plots of what the trainings that were run told; names of the files."""
  if not config.losses or not plots.available():
    return []
  runs = {
    run: read_scalars(f'{config.folder}/{run}')
    for training in config.trainings
    for run in (f'{training.name}_s{s}' for s in config.wanted(training))
  }
  names = []
  for scalar in config.losses:
    lines = {
      run: [(step, Interval(y, y, y, 1)) for step, y in told[scalar]]
      for run, told in runs.items()
      if scalar in told
    }
    if lines:
      names.append(f'{config.name}_{scalar}_by_step.png')
      plots.draw(folder / names[-1], lines, 'step', scalar)
  return names
