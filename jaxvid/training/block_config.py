"""Settings of Block Forcing."""

import dataclasses

import jax.numpy as jnp

from jaxvid.diffusion import describe
from jaxvid.diffusion.chunk_noise import ProgressiveNoise
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.memory.bank_config import BankConfig
from jaxvid.models.discriminator import Discriminator, DiscriminatorConfig
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.objectives.gan import GANConfig
from jaxvid.objectives.velocity_forcing import VelocityForcingConfig
from jaxvid.stream.stream import Settings
from jaxvid.training.optimizer import OptimizerConfig
from jaxvid.training.rollout import RolloutConfig
from jaxvid.training.student import StudentConfig


@dataclasses.dataclass(frozen=True)
class BlockData:
  """What a block-diffusion model learns from.

  Attributes:
    latents: cache of clips with one caption per chunk (`data.scripts`).
    batch: clips per step.
    frames: latent frames per clip F, whole chunks.
    text_drop: share of the clips whose prompts are left out.
    worker_count: processes that prepare batches.
  """

  latents: str
  batch: int = 8
  frames: int = 21
  text_drop: float = 0.1
  worker_count: int = 0


@dataclasses.dataclass(frozen=True)
class AdversaryConfig:
  """The Self-Forcing loss: the model's own videos, judged as a whole.

  Equation 1 of BlockVid in its non-saturating form. The discriminator's
  backbone starts from the model's own weights.

  Attributes:
    schedule: ticks of the rollout; they are noised anew between ticks.
    rollout: its length, exits and gradient; as long as the clips of data.
    gan: of the losses.
    layers: blocks that the discriminator reads.
    weight: of the loss of the model, besides `gan.generator_weight`.
    every: steps between two of the model's turns at it.
    optimizer: of the discriminator.
  """

  schedule: describe.Spec = dataclasses.field(
    default_factory=lambda: describe.Spec('self_forcing')
  )
  rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
  gan: GANConfig = dataclasses.field(default_factory=GANConfig)
  layers: tuple[int, ...] = (1, 3)
  weight: float = 1.0
  every: int = 1
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )

  def __post_init__(self):
    if self.every < 1:
      raise UserError(f'adversary.every must be >= 1, not {self.every}')
    if self.rollout.truth_after:
      raise UserError('adversary.rollout.truth_after is not for Block Forcing')


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig(StudentConfig):
  """A block-diffusion model and how it is trained (BlockVid, section 3.2).

  Attributes:
    data: clips with a prompt per chunk.
    flow: noise levels and what a chunk sees of the past.
    velocity: velocity forcing; gamma = 0 is plain flow matching.
    velocity_weight: of that loss; 0 leaves it out.
    rising: noise that rises from chunk to chunk; None = each chunk its own.
    adversary: the Self-Forcing loss; None leaves it out.
    size: latent (height, width).
    sink, window, positions, bank: the memory of rollouts and streams. With a
      bank, real clips too show a chunk only what the bank would (the paper
      does not say); without, all of the past.
  """

  data: BlockData
  flow: FlowConfig = dataclasses.field(
    default_factory=lambda: FlowConfig('teacher')
  )
  velocity: VelocityForcingConfig = dataclasses.field(
    default_factory=VelocityForcingConfig
  )
  velocity_weight: float = 1.0
  rising: ProgressiveNoise | None = None
  adversary: AdversaryConfig | None = None
  size: tuple[int, int] = (8, 8)
  sink: int = 0
  window: int = 9
  positions: str = 'absolute'
  bank: BankConfig | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.flow.forcing == 'none' or self.flow.chunk != self.chunk:
      raise UserError(
        f"flow needs forcing 'teacher' or 'diffusion' and chunk={self.chunk}, "
        f"not '{self.flow.forcing}' and {self.flow.chunk}"
      )
    if self.bank is not None and self.dit.linear:
      raise UserError('linear attention has a memory of its own: no bank')
    if not self.velocity_weight and self.adversary is None:
      raise UserError('nothing to learn: velocity_weight=0 and no adversary')
    if self.data.frames % self.chunk:
      raise UserError(
        f'clips are whole chunks of {self.chunk} latents, not '
        f'{self.data.frames}'
      )
    if self.adversary is None:
      return
    frames = self.adversary.rollout.chunks * self.chunk
    if frames != self.data.frames:
      raise UserError(
        f'rollouts of {frames} latents are judged beside clips of '
        f'{self.data.frames}; they must be equally long'
      )
    bank = self.bank
    if bank is not None and bank.capacity < self.adversary.rollout.chunks:
      raise UserError(
        f'bank: a rollout of {self.adversary.rollout.chunks} chunks is '
        f'replayed, so none may be evicted; capacity is {bank.capacity}'
      )

  @property
  def chunks(self) -> int:
    """Chunks n of a clip."""
    return self.data.frames // self.chunk

  @property
  def memory(self) -> MemoryConfig:
    """The memory of streams."""
    _, rows, columns = self.dit.patch_size
    return MemoryConfig(
      self.size[0] // rows,
      self.size[1] // columns,
      self.sink,
      self.window,
      self.chunk,
      self.positions,
      bank=self.bank,
    )

  @property
  def stream(self) -> Settings:
    """The stream of rollouts, with room to replay them."""
    memory = self.memory
    if self.bank is None:
      gradient = self.adversary.rollout.gradient_chunks
      spare = (gradient - 1) * self.chunk
      memory = dataclasses.replace(memory, spare=spare)
    return Settings(
      self.dit,
      memory,
      describe.build(self.adversary.schedule),
      scan=self.scan,
      dtype=self.dtype,
      remat=self.remat if self.scan else None,
    )

  @property
  def judge(self) -> Discriminator:
    """The discriminator's head."""
    config = DiscriminatorConfig(
      self.dit, self.adversary.layers, 4 * self.dit.dim
    )
    return Discriminator(config, jnp.dtype(self.dtype))
