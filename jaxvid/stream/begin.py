"""What happens before the first tick of a chunk."""

from jaxvid.memory import Memory
from jaxvid.memory.bank import BankMemory
from jaxvid.models.dit import TextKV
from jaxvid.stream.state import Settings


def begin(settings: Settings, memory: Memory, text: TextKV) -> Memory:
  """The memory as the next chunk's ticks find it.

  A bank looks for what the chunk's prompt asks for; a ring is always ready.

  Args:
    settings: of the stream.
    memory: between two chunks.
    text: the prompt of the next chunk, from `encode_prompt`.
  """
  if not isinstance(memory, BankMemory):
    return memory
  prompt = text.mean
  if settings.guided:
    # Both halves see the same chunks: those of the prompt.
    half = prompt.shape[0] // 2
    prompt = prompt.at[half:].set(prompt[:half])
  config = settings.config
  return memory.begin(prompt, config.rope_theta, config.rope_grid)
