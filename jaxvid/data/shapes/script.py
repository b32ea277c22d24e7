"""Scripts: videos in several shots, continuous where the world continues."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import render as render_lib
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.render import GroundTruth
from jaxvid.data.shapes.scene import Object, Scene, SceneSettings
from jaxvid.errors import UserError

KINDS = ('single', 'follow_up', 'returning')


@dataclasses.dataclass(frozen=True)
class Change:
  """What a follow-up changed; `index` of the object, -1 the background."""

  index: int
  attribute: str
  old: str
  new: str


@dataclasses.dataclass(frozen=True)
class Shot:
  """From frame `start` on the picture is `scene`, its frame 0 at `start`."""

  start: int
  caption: str
  scene: Scene


@dataclasses.dataclass(frozen=True)
class Script:
  """Shots in order, the first at frame 0, and the length in frames."""

  shots: tuple[Shot, ...]
  frames: int


def single(scene: Scene, caption: str, frames: int) -> Script:
  """A script of one shot."""
  return Script((Shot(0, caption, scene),), frames)


def _choices(
  obj: Object, attribute: str, settings: SceneSettings
) -> tuple[str, ...]:
  """Values that leave everything but this attribute as it is."""
  if attribute == 'speed':
    return () if obj.motion == 'still' else tuple(scene_lib.SPEEDS)
  if attribute == 'motion':
    # A still object has no speed to keep, a grown one would jump back.
    fixed = obj.motion in ('still', 'grow')
    return () if fixed else tuple(m for m in settings.motions if m != 'still')
  return {
    'colour': tuple(scene_lib.COLOURS),
    'shape': scene_lib.SHAPES,
    'size': tuple(scene_lib.SIZES),
  }[attribute]


def _change_object(obj: Object, attribute: str, new: str) -> Object:
  phase = obj.phase
  if attribute == 'motion':
    phase = 0.0
  elif attribute == 'speed' and obj.motion in scene_lib.PERIODS:
    periods = scene_lib.PERIODS[obj.motion]
    phase *= periods[new] / periods[obj.speed]  # The same point of the turn.
  return dataclasses.replace(obj, **{attribute: new}, phase=phase)


def _changes(
  scene: Scene, attribute: str, settings: SceneSettings
) -> list[tuple[Scene, Change]]:
  """Every scene in which this attribute alone has another value."""
  result = []
  if attribute in ('tone', 'shading'):
    old = getattr(scene.background, attribute)
    options = {
      'tone': tuple(scene_lib.TONES),
      'shading': scene_lib.SHADINGS,
    }[attribute]
    if scene.pan != 'none':
      options = tuple(o for o in options if o != 'plain')
    for new in options:
      background = dataclasses.replace(scene.background, **{attribute: new})
      changed = dataclasses.replace(scene, background=background)
      result.append((changed, Change(-1, attribute, old, new)))
  else:
    taken = {obj.colour for obj in scene.objects}
    for i, obj in enumerate(scene.objects):
      for new in _choices(obj, attribute, settings):
        if attribute == 'colour' and new in taken:
          continue
        objects = list(scene.objects)
        objects[i] = _change_object(obj, attribute, new)
        changed = dataclasses.replace(scene, objects=tuple(objects))
        change = Change(i, attribute, getattr(obj, attribute), new)
        result.append((changed, change))
  return [(other, change) for other, change in result if other != scene]


def _in_split(scene: Scene, change: Change, settings: SceneSettings) -> bool:
  if change.index < 0 or settings.split == 'all':
    return True
  obj = scene.objects[change.index]
  held = scene_lib.is_heldout(obj.shape, obj.colour, obj.motion, obj.speed)
  return held == (settings.split == 'heldout')


def follow_up(
  scene: Scene,
  rng: np.random.Generator,
  settings: SceneSettings | None = None,
  frame: int = 0,
  style: int | None = None,
  attribute: str = '',
) -> tuple[Scene, str, Change]:
  """Changes exactly one thing of a scene at one of its frames.

  Every object stays where it is and goes on from there. Colours stay apart,
  objects clear of each other, combinations in the split of `settings`, and
  the caption tells the change.

  Args:
    scene: what the picture shows.
    rng: source of the choice.
    settings: the split and the size of the picture.
    frame: of `scene` at which the change happens.
    style: of the caption (`captions.caption`).
    attribute: what changes, of `scene.CHANGES`; by default any of
      `settings.changes`, as far as the scene and the split allow it.

  Returns:
    The new scene, whose frame 0 is `frame` of the old one; its caption; what
    changed.

  Raises:
    UserError: nothing can change: a style tells little of a scene, and what
      it tells may have no other value in the split.
  """
  settings = settings or SceneSettings()
  scene = scene_lib.rebase(scene, frame, settings.height, settings.width)
  before = captions_lib.caption(scene, style)
  for name in [attribute] if attribute else rng.permutation(settings.changes):
    proposals = _changes(scene, str(name), settings)
    for i in rng.permutation(len(proposals)):
      changed, change = proposals[i]
      text = captions_lib.caption(changed, style)
      if text == before or not _in_split(changed, change, settings):
        continue
      if len(changed.objects) == 1 or render_lib.keeps_clear(changed, settings):
        return changed, text, change
  raise UserError('found no single change that keeps this scene in order.')


def shot_starts(frames: int, shots: int) -> list[int]:
  """Evenly spread starts, each at the first frame of a chunk of 3 latents.

  The first latent frame holds 1 frame and the others 4, so chunk i > 0 begins
  at frame 12 i - 3.
  """
  chunks = [
    max(1, round((frames * i / shots + 3) / 12)) for i in range(1, shots)
  ]
  starts = [0] + [12 * chunk - 3 for chunk in chunks]
  if len(set(starts)) < shots or starts[-1] >= frames:
    raise UserError(
      f'{shots} shots do not fit into {frames} frames: a shot has at least 12.'
    )
  return starts


def sample_script(
  rng: np.random.Generator,
  kind: str,
  frames: int,
  settings: SceneSettings | None = None,
  shots: int = 3,
  terse: bool = False,
) -> Script:
  """Draws a script of 'single', 'follow_up' or 'returning' kind.

  'follow_up' changes one thing from shot to shot, in captions of the same
  wording. 'returning' alternates between two scenes (A, B, A, ...); each goes
  on where it was left. With `terse` captions of A leave sizes and background
  open and those of B say both: what to return to, only a memory can know.
  """
  settings = settings or SceneSettings()
  if kind not in KINDS:
    raise UserError(f'script {kind!r} is not one of {", ".join(KINDS)}.')
  if terse and kind != 'returning':
    raise UserError(f"terse is for scripts that return, not '{kind}'")
  style = int(rng.integers(2**31))
  scene = scene_lib.sample_scene(rng, settings)
  first = Shot(0, captions_lib.caption(scene, style), scene)
  if kind == 'single':
    return Script((first,), frames)
  starts = shot_starts(frames, shots)
  if kind == 'follow_up':
    names = []
    for i in range(900):
      if i % 30 == 0:
        # What changes is drawn before the scene: in the held-out split most
        # scenes allow another size or background alone, none another speed.
        names = [str(name) for name in rng.choice(settings.changes, shots - 1)]
      try:
        rest = _follow_ups(first, starts[1:], names, rng, settings, style)
      except UserError:  # Another scene, told in another way.
        style = int(rng.integers(2**31))
        scene = scene_lib.sample_scene(rng, settings)
        first = Shot(0, captions_lib.caption(scene, style), scene)
      else:
        return Script((first, *rest), frames)
    raise UserError(f'found no scene that changes {shots - 1} time(s).')
  other = scene_lib.sample_scene(rng, settings)
  texts = [first.caption, captions_lib.caption(other, style)]
  if terse:
    texts = [
      captions_lib.caption(scene, style, 'least'),
      captions_lib.caption(other, style, 'all'),
    ]
  now, result = [scene, other], []
  for i, start in enumerate(starts):
    result.append(Shot(start, texts[i % 2], now[i % 2]))
    end = starts[i + 1] if i + 1 < shots else frames
    now[i % 2] = scene_lib.rebase(
      now[i % 2], end - start, settings.height, settings.width
    )
  return Script(tuple(result), frames)


def _follow_ups(first: Shot, starts, names, rng, settings, style):
  """The shots after the first, in each of which one named thing changes."""
  shots = [first]
  for start, name in zip(starts, names, strict=True):
    last = shots[-1]
    frame = start - last.start
    changed, text, _ = follow_up(last.scene, rng, settings, frame, style, name)
    shots.append(Shot(start, text, changed))
  return shots[1:]


def shot_of(script: Script, frames: np.ndarray) -> np.ndarray:
  """Which shot [F] each frame belongs to."""
  starts = np.array([shot.start for shot in script.shots])
  return np.searchsorted(starts, np.asarray(frames), side='right') - 1


def render_script(
  script: Script,
  frames: Sequence[int] | np.ndarray | None = None,
  height: int = 64,
  width: int = 64,
) -> np.ndarray:
  """Draws a script, or the given frames of it: uint8 [F, H, W, 3]."""
  index = np.arange(script.frames) if frames is None else np.asarray(frames)
  owner = shot_of(script, index)
  picture = np.empty((len(index), height, width, 3), np.uint8)
  for i in np.unique(owner):
    mine, shot = owner == i, script.shots[i]
    picture[mine] = render_lib.render(
      shot.scene, index[mine] - shot.start, height, width
    )
  return picture


def script_truth(
  script: Script, height: int = 64, width: int = 64
) -> list[GroundTruth]:
  """The exact truth of every shot, over its own frames."""
  starts = [shot.start for shot in script.shots]
  ends = [*starts[1:], script.frames]
  return [
    render_lib.ground_truth(shot.scene, range(end - shot.start), height, width)
    for shot, end in zip(script.shots, ends, strict=True)
  ]
