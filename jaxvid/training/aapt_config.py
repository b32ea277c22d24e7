"""What all stages of AAPT share: a causal model with recycled frames.

Adaptation, consistency and adversarial training build on one generator: a
causal transformer that makes one chunk (one latent frame) per evaluation and
sees, by channel, the frame before it. Inputs and targets of a clip are shifted
by one frame: the first frame is given, the others are made.
Source: AAPT supplement C and D.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.data import curriculum, loaders
from jaxvid.data.curriculum import Source, Stage
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion import describe
from jaxvid.memory import MemoryConfig
from jaxvid.memory.plan import ParallelPlan, parallel
from jaxvid.models import conditioning
from jaxvid.models.conditioning import InputConfig
from jaxvid.ops.attention.sliding import sliding
from jaxvid.stream.stream import Settings
from jaxvid.training import checkpoint, student
from jaxvid.training.distillation import part
from jaxvid.training.student import StudentConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AAPTConfig(StudentConfig):
  """A generator and what it learns from.

  Attributes:
    stages: clips, stage after stage; all of them begin with a first frame.
    inputs: what joins the noisy latent.
    sink: latent frames always attended; 1 is the step that was shown the
      first frame.
    window: latent frames attended, the current one included.
    chunk: latent frames per evaluation.
    worker_count: processes that prepare batches.
  """

  stages: tuple[Stage, ...]
  inputs: InputConfig = conditioning.RECYCLED
  sink: int = 1
  window: int = 30
  chunk: int = 1
  worker_count: int = 0

  def __post_init__(self):
    super().__post_init__()
    curriculum.check(self.stages)
    self.inputs.check(self.dit.in_dim, self.dit.out_dim, 'config dit')
    MemoryConfig(1, 1, self.sink, self.window, self.chunk)

  def settings(self, height: int, width: int) -> Settings:
    """The generator's stream for latents of this size.

    One tick per chunk, from pure noise, and its keys and values stay.
    """
    _, rows, columns = self.dit.patch_size
    memory = MemoryConfig(
      height // rows, width // columns, self.sink, self.window, self.chunk
    )
    return Settings(
      self.dit,
      memory,
      describe.build(describe.Spec('1', commit='last')),
      scan=self.scan,
      dtype=self.dtype,
      remat=self.remat,
      inputs=self.inputs,
      backend=self.backend,
    )


def batches(config: AAPTConfig, tokenizer: Tokenizer, seed: int, state):
  """The training task's `batches`."""

  def open_source(source: Source, frames: int, seed: int, state):
    return loaders.latent_batches(
      source.latents,
      tokenizer,
      batch=source.batch,
      frames=frames,
      text_drop=0.0,
      seed=seed,
      state=state,
      worker_count=config.worker_count,
    )

  return curriculum.Curriculum(config.stages, open_source, seed, state)


def load(config: AAPTConfig, where: str = '') -> Any:
  """The transformer of a folder or run, which must recycle frames.

  Raises:
    UserError: it has other channels, or another shape.
  """
  where = where or config.weights
  params = part(where, 'dit', config.scan)
  found = params['patch_embedding']['kernel'].shape[-2]
  config.inputs.check(found, config.dit.out_dim, where)
  return _checked(config, params, where)


def load_widened(config: AAPTConfig) -> Any:
  """The same of a text-to-video model; its new channels start random."""
  params = part(config.weights, 'dit', config.scan)
  wide = conditioning.widen(params, config.dit.in_dim, jax.random.key(0))
  return _checked(config, wide, config.weights)


def _checked(config: AAPTConfig, params: Any, where: str) -> Any:
  init = functools.partial(student.init, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  checkpoint.check_tree({'dit': params}, shapes, where)
  return params


def clip_plan(config: AAPTConfig, clip: jax.Array) -> ParallelPlan:
  """What a clip `[B, F, H, W, C]` attends in one causal pass."""
  _, frames, height, width, _ = clip.shape
  _, rows, columns = config.dit.patch_size
  tokens = (height // rows) * (width // columns)
  ranges = sliding(frames, config.chunk, tokens, config.sink, config.window)
  return grid_plan(config, range(frames), clip, ranges)


def grid_plan(
  config: AAPTConfig, positions: Sequence[int], clip: jax.Array, ranges
) -> ParallelPlan:
  """A parallel plan of latent frames at `positions`, of the clip's size."""
  _, rows, columns = config.dit.patch_size
  return parallel(
    jnp.asarray(positions),
    clip.shape[2] // rows,
    clip.shape[3] // columns,
    config.dit.head_dim,
    None if ranges is None else jnp.asarray(ranges),
    config.backend,
    theta=config.dit.rope_theta,
    grid=config.dit.rope_grid,
  )


def clip_inputs(config: AAPTConfig, first: jax.Array, clip: jax.Array):
  """What the frames of a clip are shown when all before them are real.

  Args:
    config: settings.
    first: latent frame before the clip `[B, 1, H, W, C]`.
    clip: `[B, F, H, W, C]`.
  """
  begin = conditioning.start(config.inputs, clip.shape, first)
  return conditioning.shifted(config.inputs, begin, clip, config.chunk)


def field(config: AAPTConfig, params, text: jax.Array, first, clip):
  """The generator over a clip as `(x [B, F, ...], t [B, F]) -> velocity`.

  Args:
    config: settings.
    params: of the transformer.
    text: encoded prompts `[B, T, D]`.
    first: latent frame before the clip.
    clip: real latents, whose frames are recycled.
  """
  velocity = student.field(config, params, text, clip_plan(config, clip))
  inputs = clip_inputs(config, first, clip)

  def run(x, t):
    return velocity(conditioning.join(config.inputs, x, inputs), t)

  return run


def model_config(config: AAPTConfig) -> dict[str, Any]:
  """What is needed to build and stream the generator again; JSON."""
  return {
    **student.model_config(config),
    'inputs': dataclasses.asdict(config.inputs),
    'memory': {
      'chunk': config.chunk,
      'sink': config.sink,
      'window': config.window,
    },
  }


def streamed(config: AAPTConfig) -> dict[str, Any]:
  """The same of a generator that needs one tick."""
  spec = dataclasses.asdict(describe.Spec('1', commit='last'))
  return {**model_config(config), 'schedule': spec, 'digits': ''}


def text_encoder(config: AAPTConfig):
  """`frozen` of a task that needs nothing but the text encoder."""
  return {'text': student.load_encoder(config)}
