"""Makes the word-level tokenizer of the shapes world."""

import dataclasses

import numpy as np

from jaxvid.data import tokenizer
from jaxvid.data.shapes import captions, scene


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    target: folder that receives `spiece.model` and `settings.json`.
    scenes: random scenes whose captions give the vocabulary.
    styles: captions per scene.
    text_len: tokens per prompt, padding included.
    seed: of the scenes and the wording.
  """

  target: str
  scenes: int = 4000
  styles: int = 4
  text_len: int = 48
  seed: int = 0


def run(config: Config) -> None:
  """Writes the tokenizer and prints its size."""
  rng = np.random.default_rng(config.seed)
  settings = scene.SceneSettings(split='all')
  texts = []
  for _ in range(config.scenes):
    drawn = scene.sample_scene(rng, settings)
    texts += captions.captions(drawn, config.styles, rng)
  made = tokenizer.train_words(texts, config.target, config.text_len)
  print(f'{config.target}: {made.vocab_size} tokens')
