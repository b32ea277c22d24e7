"""Captions of scenes in plain English, and their way back.

A caption is drawn from small tables of words; `parse` reads any of them, and
sentences close to them, back. Colour, shape, motion and speed are always
said; size and background may be left out.
"""

import dataclasses
import re
from typing import Literal

import numpy as np

from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import Background, Object, Scene, SceneSettings

SHAPE_WORDS = {
  'circle': ('circle', 'ball', 'disc'),
  'square': ('square', 'box'),
  'triangle': ('triangle',),
  'ring': ('ring', 'hoop'),
  'cross': ('cross', 'plus'),
}
COLOUR_WORDS = {colour: (colour,) for colour in scene_lib.COLOURS}
SIZE_WORDS = {
  'small': ('small', 'little', 'tiny'),
  'medium': ('medium', 'medium-sized'),
  'large': ('large', 'big', 'huge'),
}
SPEED_WORDS = {
  'slow': ('slowly', 'gently'),
  'fast': ('fast', 'quickly'),
}
# The participle after the noun: 'a red circle <moving right>'.
MOTION_WORDS = {
  'left': ('moving left', 'moving to the left', 'sliding left'),
  'right': ('moving right', 'moving to the right', 'sliding right'),
  'up': ('moving up', 'moving upwards', 'rising'),
  'down': ('moving down', 'moving downwards', 'falling'),
  'bounce': ('bouncing', 'bouncing up and down', 'hopping up and down'),
  'orbit': ('circling', 'moving in circles', 'going round in circles'),
  'grow': ('growing and shrinking', 'pulsing', 'swelling and shrinking'),
  'still': ('standing still', 'not moving', 'staying still'),
}
# The same as finite verbs: 'a red circle <moves right>'.
FINITE = {
  'moving': 'moves',
  'sliding': 'slides',
  'rising': 'rises',
  'falling': 'falls',
  'bouncing': 'bounces',
  'hopping': 'hops',
  'circling': 'circles round',
  'going': 'goes',
  'growing': 'grows',
  'shrinking': 'shrinks',
  'pulsing': 'pulses',
  'swelling': 'swells',
  'standing': 'stands',
  'staying': 'stays',
}
TONE_WORDS = {
  'dark': ('dark', 'black'),
  'grey': ('grey', 'gray'),
  'navy': ('navy', 'navy blue'),
  'brown': ('brown',),
}
SHADING_WORDS = {
  'plain': ('plain',),
  'shaded': ('shaded', 'softly shaded'),
  'striped': ('striped',),
}
# Sizes and the background are said as it falls out, always, or never.
Saying = Literal['drawn', 'all', 'least']
# Further ways to say a motion that only the parser needs to know.
HEARD = {
  'left': ('leftwards', 'leftward', 'to the left', 'left'),
  'right': ('rightwards', 'rightward', 'to the right', 'right'),
  'up': ('upward', 'upwards', 'up', 'rise'),
  'down': ('downward', 'downwards', 'down', 'fall'),
  'bounce': ('up and down', 'bounce', 'jumping', 'jumps', 'hops', 'hopping'),
  'orbit': ('in circles', 'in a circle', 'orbiting', 'orbits', 'orbit'),
  'grow': ('growing', 'grows', 'grow', 'swelling', 'swells'),
  'still': ('still', 'motionless', 'static', 'does not move'),
}
HEARD_SPEEDS = {'slow': ('slow',), 'fast': ('rapidly', 'quick', 'rapid')}


@dataclasses.dataclass(frozen=True)
class ObjectSpec:
  """What a caption says of one object; None where it says nothing."""

  shape: str
  colour: str
  size: str | None = None
  motion: str | None = None
  speed: str | None = None


@dataclasses.dataclass(frozen=True)
class Spec:
  """What a caption says; None where it says nothing. Pan 'none' if unsaid."""

  objects: tuple[ObjectSpec, ...]
  tone: str | None = None
  shading: str | None = None
  pan: str = 'none'


def spec(scene: Scene) -> Spec:
  """Everything a caption could say of a scene."""
  return Spec(
    objects=tuple(
      ObjectSpec(o.shape, o.colour, o.size, o.motion, o.speed)
      for o in scene.objects
    ),
    tone=scene.background.tone,
    shading=scene.background.shading,
    pan=scene.pan,
  )


def agrees(said: Spec, scene: Scene) -> bool:
  """Whether everything said is true of the scene, and every object named."""
  truth = spec(scene)
  if len(said.objects) != len(truth.objects) or said.pan != truth.pan:
    return False
  pairs = [(said.tone, truth.tone), (said.shading, truth.shading)]
  by_colour = {obj.colour: obj for obj in truth.objects}
  for obj in said.objects:
    if obj.colour not in by_colour:
      return False
    real = dataclasses.astuple(by_colour[obj.colour])
    pairs += zip(dataclasses.astuple(obj), real, strict=True)
  return all(word is None or word == real for word, real in pairs)


def _finite(participle: str) -> str:
  if participle == 'not moving':
    return 'does not move'
  return ' '.join(FINITE.get(word, word) for word in participle.split())


def _object_phrase(
  obj: Object,
  rng: np.random.Generator,
  plain: bool,
  finite: bool,
  saying: Saying,
) -> str:
  def pick(words):
    index = int(rng.integers(len(words)))  # Drawn in any case: same style.
    return words[0] if plain else words[index]

  with_size, adverb_first = rng.random(2)
  size = pick(SIZE_WORDS[obj.size])
  noun = f'{pick(COLOUR_WORDS[obj.colour])} {pick(SHAPE_WORDS[obj.shape])}'
  if _said(saying, plain or with_size < 0.7):
    noun = f'{size} {noun}'
  article = 'an' if noun[0] in 'aeiou' else 'a'
  action = pick(MOTION_WORDS[obj.motion])
  if finite:
    action = _finite(action)
  speed = pick(SPEED_WORDS.get(obj.speed, ('',)))
  if speed and not plain and adverb_first < 0.3 and speed != 'fast':
    action = f'{speed} {action}'
  elif speed:
    action = f'{action} {speed}'
  return f'{article} {noun} {action}'


def _said(saying: Saying, drawn: bool) -> bool:
  return drawn if saying == 'drawn' else saying == 'all'


def _background_phrase(
  background: Background, rng: np.random.Generator, plain: bool, saying: Saying
) -> tuple[str, str]:
  """Returns (lead, phrase): where it stands and what it says."""
  where, tone, shading, lead, omit = rng.random(5)
  preposition = ('on', 'over', 'against')[int(3 * where) if not plain else 0]
  tones = TONE_WORDS[background.tone]
  shadings = SHADING_WORDS[background.shading]
  tone = tones[0 if plain else int(tone * len(tones))]
  shading = shadings[0 if plain else int(shading * len(shadings))]
  if not _said(saying, plain or omit >= 0.3):
    return '', ''
  if background.shading == 'plain' and (plain or 0.3 <= omit < 0.8):
    adjectives = tone
  else:
    adjectives = f'{shading} {tone}'
  phrase = f'{preposition} a {adjectives} background'
  return ('first' if not plain and lead < 0.2 else 'last'), phrase


def caption(
  scene: Scene, style: int | None = None, saying: Saying = 'drawn'
) -> str:
  """One caption of a scene.

  Args:
    scene: what to describe.
    style: seed of the wording; None is the plain, complete wording. Scenes
      that differ in one attribute get captions that differ in its words only.
    saying: whether it tells sizes and the background.

  Returns:
    A sentence without a final full stop.
  """
  plain = style is None
  rng = np.random.default_rng(0 if plain else style)
  order, joint, front, camera, verbs = rng.random(5)
  finite = not plain and verbs < 0.3
  place, background = _background_phrase(scene.background, rng, plain, saying)
  phrases = [
    _object_phrase(obj, rng, plain, finite, saying) for obj in scene.objects
  ]
  if not plain and order < 0.5:
    phrases = phrases[::-1]
  if len(phrases) > 1:
    joint = ' and ' if plain or joint < 0.7 else ', and '
    text = ', '.join(phrases[:-1]) + joint + phrases[-1]
  else:
    text = phrases[0]
  if place == 'first':
    text = f'{background}, {text}'
  elif background:
    text = f'{text} {background}'
  if scene.pan != 'none':
    pans = ('while the camera pans', 'as the camera moves')
    text = f'{text}, {pans[int(2 * camera) if not plain else 0]} {scene.pan}'
  if not plain and not finite and place != 'first' and front < 0.2:
    text = f'a video of {text}'
  return text


def captions(
  scene: Scene, count: int = 6, rng: np.random.Generator | None = None
) -> list[str]:
  """Up to `count` different captions; the first is plain and complete."""
  rng = rng or np.random.default_rng(0)
  texts = [caption(scene)]
  texts += [
    caption(scene, int(style)) for style in rng.integers(2**31, size=4 * count)
  ]
  return list(dict.fromkeys(texts))[:count]


def _table(*tables: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
  """(phrase, name) pairs, longest phrase first."""
  pairs = [
    (phrase, name)
    for table in tables
    for name, phrases in table.items()
    for phrase in phrases
  ]
  return sorted(pairs, key=lambda pair: -len(pair[0]))


_MOTIONS = _table(
  MOTION_WORDS,
  {
    name: tuple(_finite(phrase) for phrase in phrases)
    for name, phrases in MOTION_WORDS.items()
  },
  HEARD,
)
_SPEEDS = _table(SPEED_WORDS, HEARD_SPEEDS)
_SHAPES = _table(
  SHAPE_WORDS, {k: tuple(f'{w}s' for w in v) for k, v in SHAPE_WORDS.items()}
)
_COLOURS = _table(COLOUR_WORDS)
_SIZES = _table(SIZE_WORDS, {'medium': ('mid-sized',)})
_TONES = _table(TONE_WORDS)
_SHADINGS = _table(SHADING_WORDS, {'striped': ('stripy',), 'plain': ('flat',)})


def _find(text: str, table: list[tuple[str, str]]) -> list[str]:
  """Names whose phrases occur, longest first, each place used once."""
  names = []
  for phrase, name in table:
    pattern = rf'(?<![\w-]){re.escape(phrase)}(?![\w-])'
    text, hits = re.subn(pattern, '|', text)
    if hits:
      names.append(name)
  return names


def _mark(text: str, table: list[tuple[str, str]], kind: str) -> str:
  """Replaces every phrase by `<kind:name>`, which nothing else matches."""
  for phrase, name in table:
    pattern = rf'(?<![\w<:-]){re.escape(phrase)}(?![\w>:-])'
    text = re.sub(pattern, f'<{kind}:{name}>', text)
  return text


def _one(text: str, kind: str) -> tuple[bool, str | None]:
  """Whether at most one name of a kind is marked, and that name or None."""
  names = set(re.findall(rf'<{kind}:(\w+)>', text))
  return len(names) < 2, next(iter(names), None)


def _parse_object(text: str) -> ObjectSpec | None:
  found = {}
  for kind in ('shape', 'colour', 'size', 'motion', 'speed'):
    clear, found[kind] = _one(text, kind)
    if not clear:
      return None
  if found['shape'] is None or found['colour'] is None:
    return None
  if found['motion'] == 'still':
    found['speed'] = 'none'
  return ObjectSpec(**found)


def parse(text: str) -> Spec | None:
  """Reads a caption; None where it names no object or contradicts itself."""
  text = re.sub(r'[^\w\s,-]', ' ', text.lower())
  text = re.sub(r'\s+', ' ', text)
  pan = re.search(
    r'camera (?:pans|moves|panning|moving)[\w ]*?(left|right)', text
  )
  if pan:
    text = text[: pan.start()] + text[pan.end() :]
  scenery = re.search(
    r'(?:\b(?:on|over|against|in front of|with) an? [\w -]*?background)'
    r'|(?:the background is [\w -]+)',
    text,
  )
  tones, shadings = [], []
  if scenery:
    tones = _find(scenery[0], _TONES)
    shadings = _find(scenery[0], _SHADINGS)
    text = f'{text[: scenery.start()]} {text[scenery.end() :]}'
    if len(tones) > 1 or len(shadings) > 1:
      return None
  for table, kind in (
    (_MOTIONS, 'motion'),
    (_SPEEDS, 'speed'),
    (_SHAPES, 'shape'),
    (_COLOURS, 'colour'),
    (_SIZES, 'size'),
  ):
    text = _mark(text, table, kind)
  parts = re.split(r'\b(?:a|an|one|the)\b', text)
  parts = [part for part in parts if '<shape:' in part]
  objects = [_parse_object(part) for part in parts]
  if not objects or None in objects:
    return None
  return Spec(
    objects=tuple(objects),
    tone=tones[0] if tones else None,
    shading=shadings[0] if shadings else None,
    pan=pan[1] if pan else 'none',
  )


def heldout_scenes(
  count: int = 1024, seed: int = 0, settings: SceneSettings | None = None
) -> list[tuple[Scene, str]]:
  """One-object scenes whose combinations training never saw, with captions.

  The captions all differ; the camera rests.
  """
  settings = dataclasses.replace(
    settings or SceneSettings(),
    counts=(1.0,),
    pan_probability=0.0,
    split='heldout',
  )
  rng = np.random.default_rng([seed, 1])
  pairs = {}
  while len(pairs) < count:
    scene = scene_lib.sample_scene(rng, settings)
    pairs.setdefault(caption(scene, int(rng.integers(2**31))), scene)
  return [(scene, text) for text, scene in pairs.items()]
