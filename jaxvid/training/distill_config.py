"""Settings of few-step students: the four axes as one table of choices."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from jaxvid.data import prompt_sources
from jaxvid.diffusion import describe
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.models.discriminator import Discriminator, DiscriminatorConfig
from jaxvid.models.dit import DiT, DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.objectives.flow_distribution import FlowDistributionConfig
from jaxvid.objectives.gan import GANConfig
from jaxvid.objectives.sid import SiDConfig
from jaxvid.stream.stream import Settings
from jaxvid.training.lora import LoRAConfig
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.rollout import RolloutConfig

Objective = Literal['dmd', 'sid', 'gan']
Target = Literal['causal', 'teacher', 'gradient']


@dataclasses.dataclass(frozen=True)
class Weights:
  """Where the networks start; folders of weights or runs.

  Attributes:
    student: the few-step student, after its initialisation; with the text
      encoder, unless `text` is given.
    teacher: the frozen bidirectional teacher (real score).
    critic: the fake score; '' = the teacher's weights.
    causal: the frozen many-tick generator that the regression aims at; '' =
      the student as it starts.
    text: the frozen text encoder; '' = the student's.
  """

  student: str
  teacher: str
  critic: str = ''
  causal: str = ''
  text: str = ''


@dataclasses.dataclass(frozen=True)
class DistillData:
  """What the student learns from.

  Attributes:
    prompts: prompts alone, for objectives that need no video.
    latents: folder of cached latents with captions, for those that do; ''
      = prompts alone.
    batch: prompts per step.
    worker_count: processes that prepare batches.
  """

  prompts: prompt_sources.PromptConfig = dataclasses.field(
    default_factory=prompt_sources.PromptConfig
  )
  latents: str = ''
  batch: int = 64
  worker_count: int = 0


@dataclasses.dataclass(frozen=True)
class LongConfig:
  """Streaming long tuning: videos go on from step to step (LongLive, 3.2).

  Attributes:
    latents: longest video; a clip that would pass it begins another one.
    overlap: chunks of the clip before that the teacher sees again, unscored.
    switches: share of the videos whose prompt changes where a clip begins;
      which clip is drawn evenly.
    every: clips from that change to the next, back to the first prompt, and so
      on to and fro; 0: it changes once (LongLive).
    cache: what becomes of the memory then, as `stream.switch.SwitchConfig`.
    again: the schedule begins again then, as there (ours).
    kv_gradient: keys and values of the new clip carry gradient; otherwise
      each chunk learns from its own exit tick alone.
  """

  latents: int = 240
  overlap: int = 1
  switches: float = 1.0
  every: int = 0
  cache: Literal['recache', 'keep', 'none'] = 'recache'
  again: bool = False
  kv_gradient: bool = False

  def __post_init__(self):
    if not 0 <= self.switches <= 1:
      raise UserError(f'long.switches must be 0 to 1, not {self.switches}')
    if self.overlap < 1:
      raise UserError(f'long.overlap must be >= 1, not {self.overlap}')
    if self.every < 0:
      raise UserError(f'long.every must be >= 0, not {self.every}')


@dataclasses.dataclass(frozen=True)
class DistillConfig:
  """A student, its teacher and how one learns from the other.

  Attributes:
    dit: sizes of student and critic.
    text: sizes of the text encoder.
    tokenizer: folder of the tokenizer.
    weights: where the networks start.
    data: prompts or latents.
    size: latent (height, width).
    schedule: the student's ticks and commit rule.
    digits: draw each chunk's number of ticks from these, '12345'; '' = the
      schedule's own. One student then serves any digit string.
    sink, window, positions: the student's memory.
    chunk: latent frames per chunk.
    rollout: length, exits, history.
    history: what a chunk sees: 'self' rolls out; 'teacher' and 'diffusion'
      show real latents, clean or noisy (CausVid), all chunks in one pass.
    objective: 'dmd', 'sid' or 'gan'.
    scored: how teacher and critic see a clip: 'whole', by a bidirectional
      teacher; or 'chunks', each behind the clean ones before it, by a causal
      many-tick one: then the student matches, chunk by chunk, what may follow
      from its own past.
    scored_chunk: latent frames that such a teacher denoises together; 0 = the
      student's chunk.
    guidance: weight w of the teacher in u + w (c - u).
    negative: prompt u of the teacher.
    score: noise levels and form of the scores.
    gan: of objective 'gan'.
    layers: blocks of the critic that its discriminator reads.
    flow: eq. 12 of DiagDistill; None = the objective alone.
    target: what its regressions aim at, from the same noise: the causal
      generator's video, the end of the teacher's ODE, or ('gradient', the
      released default) x - DMD gradient.
    target_schedule: ticks of that target.
    target_guidance: its guidance weight.
    vae: folder of the VAE that turns the frame before the clip into its
      first latent, when a rollout is longer than the clip; '' = the first
      chunk of such a clip is not scored.
    generator_every: critic steps per student step.
    critic_first: critic steps before the student's first one, so that its
      first directions are not those of a critic that never saw its clips.
    critic_optimizer: of critic and discriminator.
    lora: adapters are trained, of student and critic, and nothing else; None
      = all weights.
    long: videos go on from step to step, `rollout` is one clip of them; None
      = every step makes a video of its own.
    motion_decay: of the averaged motion head.
    average_after: student steps before averaging of its weights starts.
    teacher_dit: sizes of the teacher; None = the student's.
    scan: scan over layers (little memory, quick to compile) or unroll them.
    remat: see `DiT.remat`.
    backend: of attention, see `ops.attention`.
    dtype: compute type.
  """

  dit: DiTConfig
  text: TextConfig
  tokenizer: str
  weights: Weights
  data: DistillData
  size: tuple[int, int] = (8, 8)
  schedule: describe.Spec = dataclasses.field(default_factory=describe.Spec)
  digits: str = ''
  sink: int = 3
  window: int = 9
  positions: str = 'absolute'
  chunk: int = 3
  rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
  history: Literal['self', 'teacher', 'diffusion'] = 'self'
  objective: Objective = 'dmd'
  scored: Literal['whole', 'chunks'] = 'whole'
  scored_chunk: int = 0
  guidance: float = 4.0
  negative: str = ''
  score: SiDConfig = dataclasses.field(default_factory=SiDConfig)
  gan: GANConfig = dataclasses.field(default_factory=GANConfig)
  layers: tuple[int, ...] = ()
  flow: FlowDistributionConfig | None = None
  target: Target = 'causal'
  target_schedule: describe.Spec = dataclasses.field(
    default_factory=lambda: describe.Spec('self_forcing')
  )
  target_guidance: float = 1.0
  vae: str = ''
  generator_every: int = 5
  critic_first: int = 0
  critic_optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  lora: LoRAConfig | None = None
  long: LongConfig | None = None
  motion_decay: float = 0.95
  average_after: int = 0
  teacher_dit: DiTConfig | None = None
  scan: bool = True
  remat: str | None = None
  backend: str = 'auto'
  dtype: str = 'float32'

  def __post_init__(self):
    if self.dit.text_dim != self.text.dim:
      raise UserError(
        f'dit.text_dim={self.dit.text_dim} must equal text.dim={self.text.dim}'
      )
    teacher = self.teacher_dit or self.dit
    if teacher.out_dim != self.dit.out_dim:
      raise UserError(
        f'the teacher makes latents of {teacher.out_dim} channels, the '
        f'student of {self.dit.out_dim}'
      )
    if self.generator_every < 1:
      raise UserError(
        f'generator_every must be >= 1, not {self.generator_every}'
      )
    if self.scored == 'chunks' and self.objective == 'gan':
      raise UserError("scored='chunks' is for objectives with a teacher")
    scored = self.scored_chunk or self.chunk
    if self.scored == 'chunks' and self.frames % scored:
      raise UserError(
        f'a clip of {self.frames} latents is not made of chunks of '
        f'scored_chunk={scored}'
      )
    if self.critic_first < 0:
      raise UserError(f'critic_first must be >= 0, not {self.critic_first}')
    if (self.objective == 'gan') != bool(self.layers):
      raise UserError(
        "objective 'gan', and no other, needs layers, the blocks that the "
        'discriminator reads'
      )
    if self.objective != 'dmd' and self.flow is not None:
      raise UserError(f"flow extends objective 'dmd', not '{self.objective}'")
    if set(self.digits) - set('12345'):
      raise UserError(f'digits={self.digits!r} may hold 1 to 5 only')
    if self.real_clips and not self.data.latents:
      raise UserError('these settings need real clips: give data.latents')
    if self.long is not None:
      self._check_long(self.long)

  def _check_long(self, long: LongConfig) -> None:
    clip = self.rollout.gradient_chunks
    if self.rollout.chunks != clip:
      raise UserError(
        'long: rollout.chunks and rollout.gradient_chunks are one clip, and '
        f'equal, not {self.rollout.chunks} and {clip}'
      )
    if long.overlap >= clip:
      raise UserError(
        f'long.overlap={long.overlap} leaves nothing new of {clip} chunks'
      )
    if long.latents < self.frames:
      raise UserError(
        f'long.latents={long.latents} is shorter than a clip ({self.frames})'
      )
    if self.real_clips or self.digits:
      raise UserError(
        'long makes videos of its own with one schedule: no real clips, no '
        'digits'
      )
    if self.flow is not None and self.target != 'gradient':
      raise UserError("long: with flow, target must be 'gradient'")

  @property
  def real_clips(self) -> bool:
    """Whether a step needs real latents."""
    return (
      self.history != 'self'
      or self.objective == 'gan'
      or bool(self.rollout.truth_after)
    )

  @property
  def frames(self) -> int:
    """Latent frames of the clip that is scored."""
    return self.rollout.gradient_chunks * self.chunk

  def stream(
    self, spec: describe.Spec, guidance: float = 1.0, spare: int = 0
  ) -> Settings:
    """Settings of a stream in this memory."""
    _, rows, columns = self.dit.patch_size
    memory = MemoryConfig(
      self.size[0] // rows,
      self.size[1] // columns,
      self.sink,
      self.window,
      self.chunk,
      self.positions,
      spare=spare,
    )
    schedule = describe.build(spec)
    return Settings(
      self.dit,
      memory,
      schedule,
      guidance,
      self.scan,
      self.dtype,
      remat=self.remat,
      backend=self.backend,
    )

  @property
  def student(self) -> Settings:
    """The student's stream, with room to replay a clip."""
    return self.stream(self.schedule, spare=self.frames - self.chunk)

  @property
  def network(self) -> DiT:
    return self._build(self.dit)

  @property
  def teacher_network(self) -> DiT:
    return self._build(self.teacher_dit or self.dit)

  def _build(self, sizes: DiTConfig) -> DiT:
    dtype = jnp.dtype(self.dtype)
    return DiT(sizes, dtype, self.scan, self.remat, backend=self.backend)

  @property
  def judge(self) -> Discriminator:
    """The discriminator's head on the critic's blocks."""
    config = DiscriminatorConfig(self.dit, self.layers, 4 * self.dit.dim)
    return Discriminator(config, jnp.dtype(self.dtype))
