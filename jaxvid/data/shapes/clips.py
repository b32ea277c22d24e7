"""Examples of a data set of the shapes world, whatever stores them."""

import dataclasses
import json
import zlib
from typing import Any

import numpy as np

from jaxvid.data.shapes import captions as captions_lib
from jaxvid.data.shapes import script as script_lib
from jaxvid.data.shapes.scene import Background, Object, Scene, SceneSettings
from jaxvid.data.shapes.script import Script, Shot
from jaxvid.errors import UserError

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """What one data set holds.

  Attributes:
    frames: of each clip (16 frames/s).
    height: of the picture in pixels.
    width: of the picture in pixels.
    train: number of clips.
    validation: number of clips, of the same combinations as `train`.
    test: number of clips, of held-out combinations only.
    paraphrases: most captions of the first shot.
    kinds: weights of the scripts 'single', 'follow_up', 'returning'.
    shots: of the scripts with several.
    counts: weights of 1, 2, 3, ... objects.
    pan_probability: of a moving camera.
    seed: of everything.
  """

  frames: int = 81
  height: int = 64
  width: int = 64
  train: int = 4096
  validation: int = 256
  test: int = 1024
  paraphrases: int = 6
  kinds: tuple[float, ...] = (1.0, 0.0, 0.0)
  shots: int = 3
  counts: tuple[float, ...] = (0.6, 0.25, 0.15)
  pan_probability: float = 0.1
  seed: int = 0

  def __post_init__(self):
    for name in ('frames', 'paraphrases', 'shots'):
      if getattr(self, name) < 1:
        raise UserError(f'{name} must be at least 1: {getattr(self, name)}')
    for name in ('train', 'validation', 'test', 'seed'):
      if getattr(self, name) < 0:
        raise UserError(f'{name} must not be negative: {getattr(self, name)}')
    if min(self.height, self.width) < 16:
      raise UserError(
        f'height and width must be at least 16: {self.height}x{self.width}'
      )
    if len(self.kinds) != len(script_lib.KINDS):
      names = ', '.join(script_lib.KINDS)
      raise UserError(f'kinds needs one weight for each of {names}')
    for name in ('kinds', 'counts'):
      weights = getattr(self, name)
      if not weights or min(weights) < 0 or sum(weights) <= 0:
        raise UserError(f'{name} must be weights, not all zero: {weights}')
    if sum(self.kinds[1:]) > 0:
      script_lib.shot_starts(self.frames, self.shots)

  def scenes(self, split: str) -> SceneSettings:
    """What the scenes of `split` may show."""
    return SceneSettings(
      counts=self.counts,
      pan_probability=self.pan_probability,
      height=self.height,
      width=self.width,
      horizon=max(160, self.frames),
      split='heldout' if split == 'test' else 'train',
    )


NAMED = {
  'short': ClipSettings(),
  'long': ClipSettings(
    frames=961,
    train=128,
    validation=16,
    test=32,
    kinds=(0.4, 0.4, 0.2),
    shots=6,
  ),
}


def full_name(name: str, settings: ClipSettings) -> str:
  """`name`, marked where the settings are not those of that name.

  So a data set of other settings never passes for one already built.
  """
  if NAMED.get(name) == settings:
    return name
  text = json.dumps(dataclasses.asdict(settings), sort_keys=True)
  return f'{name}-{zlib.crc32(text.encode()):08x}'


def scene_to_json(scene: Scene) -> str:
  """A scene as one line of JSON; everything can be drawn from it again."""
  return json.dumps(dataclasses.asdict(scene))


def scene_from_json(text: str | bytes) -> Scene:
  """The inverse of `scene_to_json`."""
  fields = json.loads(text)
  objects = tuple(
    Object(**{**obj, 'start': tuple(obj['start'])}) for obj in fields['objects']
  )
  ground = fields['background']
  background = Background(**{**ground, 'offset': tuple(ground['offset'])})
  return Scene(objects, background, fields['pan'])


def make_script(settings: ClipSettings, split: str, index: int) -> Script:
  """The script of one clip, the same whatever else is built."""
  rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
  weights = np.array(settings.kinds, np.float64)
  kind = str(rng.choice(script_lib.KINDS, p=weights / weights.sum()))
  return script_lib.sample_script(
    rng, kind, settings.frames, settings.scenes(split), settings.shots
  )


def make_example(script: Script, settings: ClipSettings) -> dict[str, Any]:
  """Draws one example: video, captions, shots and the exact truth.

  Returns:
    video: uint8 [F, H, W, 3].
    captions: of the first shot, several.
    shots: start frames, captions and scenes (JSON).
    objects: uint8 [F, H, W, 1], which object shows: 0 none, i + 1 object i.
    positions, velocity: float32 [F, N, 2] (x, y) px and px/frame.
    speed, radius: float32 [F, N] px/frame and px.
    N is the most objects allowed; absent ones are not-a-number.
  """
  height, width = settings.height, settings.width
  shape = (settings.frames, len(settings.counts))
  objects = np.zeros((settings.frames, height, width, 1), np.uint8)
  positions = np.full((*shape, 2), np.nan, np.float32)
  velocity, radius = positions.copy(), positions[..., 0].copy()
  start = 0
  for truth in script_lib.script_truth(script, height, width):
    end = start + len(truth.masks)
    count = truth.masks.shape[1]
    for i in range(count):
      objects[start:end, ..., 0][truth.masks[:, i]] = i + 1
    positions[start:end, :count] = truth.positions
    velocity[start:end, :count] = truth.velocity
    radius[start:end, :count] = truth.radius
    start = end
  scene = script.shots[0].scene
  return {
    'video': script_lib.render_script(script, None, height, width),
    'captions': captions_lib.captions(scene, settings.paraphrases),
    'shots': {
      'start': [shot.start for shot in script.shots],
      'caption': [shot.caption for shot in script.shots],
      'scene': [scene_to_json(shot.scene) for shot in script.shots],
    },
    'objects': objects,
    'positions': positions,
    'velocity': velocity,
    'speed': np.linalg.norm(velocity, axis=-1),
    'radius': radius,
  }


def read_script(example: dict[str, Any]) -> Script:
  """The script that a stored example was drawn from."""
  shots = example['shots']
  texts = [t.decode() if isinstance(t, bytes) else t for t in shots['caption']]
  scenes = [scene_from_json(text) for text in shots['scene']]
  parts = zip(shots['start'], texts, scenes, strict=True)
  return Script(
    tuple(Shot(int(start), text, scene) for start, text, scene in parts),
    len(example['video']),
  )
