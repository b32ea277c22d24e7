"""Captions for chunks from any OpenAI-compatible vision model.

Each chunk's key frames go to the model with the description of the chunk
before, in the words of BlockVid's appendix A.3; then one more question aligns
all of a clip's captions into one story (A.6; its wording is our own, none was
published).
"""

import dataclasses
import io
import json
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxvid.data import chat, files, tokenizer, video
from jaxvid.data.chat import ChatConfig
from jaxvid.data.videos import work
from jaxvid.errors import UserError

# BlockVid, appendix A.3.
ROLE = (
  'Act as a professional video content analyst. Describe a given video frame '
  'in English.'
)
CONTEXT = (
  'The previous frame was described as: "{previous_description}". Use this as '
  'context to ensure temporal coherence.'
)
INSTRUCTION = (
  'Write a single, descriptive paragraph that:\n'
  '- Identifies the main subject, their specific actions, and expressions.\n'
  '- Describes the environment and background, including setting and '
  'lighting.\n'
  '- Highlights the cinematic quality, such as composition, color palette, '
  'and atmosphere (e.g., tense, serene, spectacular).\n'
  'Output must be one coherent paragraph, written in natural language prose, '
  'without bullet points or numbered lists. Return the paragraph description '
  'of the current frame.'
)
STORY = (
  'You get the captions of consecutive chunks of one video as a JSON list of '
  'texts. Rewrite them so that together they tell one coherent story: the '
  'same names for the same people, things and places throughout, nothing '
  'contradictory, no repetition of what does not change. Keep what each chunk '
  'shows and their order. Answer with a JSON list of as many texts and nothing '
  'else.'
)


@dataclasses.dataclass(frozen=True)
class DescribeConfig:
  """How chunks get their captions.

  Attributes:
    chat: the endpoint; without a model nothing is asked.
    keyframes: pictures of each chunk that are shown, evenly spaced.
    side: longest side of these pictures in pixels.
    align: let the model align the captions of a clip into one story.
    always: ask for clips that have captions already, too.
  """

  chat: ChatConfig = dataclasses.field(default_factory=ChatConfig)
  keyframes: int = 1
  side: int = 512
  align: bool = True
  always: bool = False

  def __post_init__(self):
    if self.keyframes < 1 or self.side < 16:
      raise UserError(
        'keyframes must be at least 1 and side at least 16, not '
        f'{self.keyframes} and {self.side}'
      )


def path_of(target: str | pathlib.Path, clip: work.Clip) -> pathlib.Path:
  """Where the answers for a clip are kept."""
  return pathlib.Path(target) / 'captions' / f'{work.clip_key(clip)}.json'


def wants(clip: work.Clip, config: DescribeConfig) -> bool:
  """Whether a kept clip is to be described."""
  return config.always or not all(clip['captions'])


def key_frames(
  target: str | pathlib.Path, clip: work.Clip, count: int
) -> list[list[np.ndarray]]:
  """Pictures of each chunk, uint8 `[H, W, 3]`, from the middle outwards."""
  wanted: dict[int, int] = {}
  for number, (start, end) in enumerate(clip['chunks']):
    places = start + (np.arange(count) + 0.5) * (end - start) / count
    wanted |= {int(place) - clip['start']: number for place in places}
  found: list[list[np.ndarray]] = [[] for _ in clip['chunks']]
  path = work.clip_path(target, clip)
  for i, frame in enumerate(video.native_frames(path)):
    if i in wanted:
      found[wanted[i]].append(frame)
  return found


def jpeg(picture: np.ndarray, side: int) -> bytes:
  """A picture as a JPEG file, its longest side at most `side`."""
  from PIL import Image

  image = Image.fromarray(picture)
  image.thumbnail((side, side))
  file = io.BytesIO()
  image.save(file, 'JPEG', quality=90)
  return file.getvalue()


def describe(
  target: str | pathlib.Path,
  clip: work.Clip,
  config: DescribeConfig,
  sleep: Callable[[float], Any] = time.sleep,
) -> list[str]:
  """Asks for the captions of a clip and keeps them.

  Returns:
    one text per chunk; those that are there already if the clip was done.

  Raises:
    UserError: the endpoint gave up.
  """
  place = path_of(target, clip)
  if (done := work.read_json(place)) is not None:
    return done['captions']
  raw, previous = [], ''
  for pictures in key_frames(target, clip, config.keyframes):
    images = [jpeg(picture, config.side) for picture in pictures]
    context = CONTEXT.format(previous_description=previous) + '\n'
    question = (context if previous else '') + INSTRUCTION
    answer = chat.ask(config.chat, ROLE, question, sleep, images)
    previous = tokenizer.clean(tokenizer.clean(answer).strip('"'))
    raw.append(previous)
  aligned = align(raw, config, sleep) if config.align else None
  files.write_json(
    place,
    {
      'id': clip['id'],
      'model': config.chat.model,
      'captions': aligned or raw,
      'raw': raw,
      'aligned': aligned is not None,
    },
  )
  return aligned or raw


def align(
  texts: Sequence[str], config: DescribeConfig, sleep: Callable[[float], Any]
) -> list[str] | None:
  """The captions as one story; None where the answer is no such list."""
  if len(texts) < 2:
    return None
  answer = chat.ask(config.chat, STORY, json.dumps(list(texts)), sleep)
  # Models like to wrap JSON in a code block.
  match = re.search(r'\[.*\]', answer, re.DOTALL)
  try:
    story = json.loads(match[0]) if match else None
  except ValueError:
    return None
  if not isinstance(story, list) or len(story) != len(texts):
    return None
  if not all(isinstance(text, str) and text.strip() for text in story):
    return None
  return [' '.join(text.split()) for text in story]
