"""Settings of videos that change while they play, and their mistakes."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Literal

from jaxvid.data import files, prompt_script
from jaxvid.diffusion.schedule import Schedule
from jaxvid.errors import UserError
from jaxvid.tasks import state_file

if TYPE_CHECKING:
  from jaxvid.stream.switch import SwitchConfig
  from jaxvid.tasks.generate import Config


@dataclasses.dataclass(frozen=True)
class Switching:
  """How the prompt changes while the video is made.

  Attributes:
    cache: what becomes of the memory: `recache` (made anew with the new
      prompt), `upstream` (as LongLive's release does), `keep` or `none`.
    sink: `keep` or `rewrite` the sink (of `upstream`).
    again: the schedule begins again with the new prompt.
    script: file of prompts with times: .jsonl, .yaml, .json.
    line: which video of a script with one per line (LongLive's format).
    frames: latent frames at which its second and later prompts begin.
    live: every line typed is the next prompt.
  """

  cache: Literal['recache', 'upstream', 'keep', 'none'] = 'recache'
  sink: Literal['keep', 'rewrite'] = 'keep'
  again: bool = False
  script: str = ''
  line: int = 0
  frames: tuple[int, ...] = ()
  live: bool = False

  def config(self) -> 'SwitchConfig':
    """For `stream.switch`."""
    from jaxvid.stream.switch import SwitchConfig

    return SwitchConfig(self.cache, self.sink, self.again)


@dataclasses.dataclass(frozen=True)
class Saving:
  """A stream on disk.

  Attributes:
    save: file that receives the stream when the video ends or is stopped.
    every: seconds between copies meanwhile; 0: none.
    resume: file of a stream that goes on, under the same settings; new
      frames go to a file of their own.
  """

  save: str = ''
  every: float = 0.0
  resume: str = ''


def wanted(config: 'Config') -> bool:
  """Whether a stream may be changed or kept while it plays."""
  state, change = config.state, config.switch
  return bool(state.save or state.resume or change.script or change.live)


def check(
  config: 'Config', schedule: Schedule, num_chunks: int
) -> dict[int, str]:
  """Finds mistakes before anything is loaded.

  Returns:
    Chunk -> prompt of the script, if there is one.

  Raises:
    UserError: the first mistake.
  """
  state, change = config.state, config.switch
  if state.every < 0 or (state.every and not state.save):
    raise UserError(
      f'state.every={state.every:g} must be >= 0 and needs state.save'
    )
  if change.again and schedule.flight > 1:
    raise UserError(
      f'switch.again needs one chunk after the other, not schedule='
      f'{schedule.name}'
    )
  if not wanted(config):
    return {}
  if schedule.bidirectional:
    raise UserError(
      'schedule=teacher makes whole clips; only streams change their prompt '
      'or are saved'
    )
  if schedule.flight > 1:
    raise UserError(
      f'schedule {schedule.name!r} has {schedule.flight} chunks in flight; '
      'such streams cannot change their prompt or be saved'
    )
  if config.bank is not None and change.cache == 'upstream':
    raise UserError(
      "switch.cache='upstream' knows no bank; use 'recache', 'keep' or 'none'"
    )
  if state.resume:
    if config.first_frame or config.video:
      raise UserError(
        'state.resume goes on from a stream; first_frame and video begin one'
      )
    state_file.read_head(state.resume)
  if state.save:
    files.check_writable(state.save)
  return script_cues(config, num_chunks)


def check_restart(config: 'Config', schedule: Schedule) -> None:
  """UserError for settings that do not go with restarted chunks."""
  if config.chunk < 2:
    raise UserError(
      'restart=true needs chunks of at least 2 latents, the first of which is '
      f'given, not {config.chunk}'
    )
  if schedule.bidirectional or schedule.flight > 1:
    raise UserError(
      f'restart=true needs one chunk after the other, not schedule='
      f'{schedule.name}'
    )
  if config.video or config.state.save or config.state.resume:
    raise UserError('restart=true goes with neither video nor saved streams')
  if config.switch.live or (
    config.switch.script and config.switch.cache != 'keep'
  ):
    raise UserError("restart=true takes scripts with switch.cache='keep' alone")


def restarted_chunks(config: 'Config', num_frames: int) -> int:
  """Chunks of T frames each, and one frame more in front of a first one."""
  each = 4 * (config.chunk - 1)
  return max(1, -(-(num_frames - (not config.first_frame)) // each))


def script_cues(config: 'Config', num_chunks: int) -> dict[int, str]:
  """Chunk -> prompt of the script that a config names, if any."""
  options = config.switch
  if not options.script:
    return {}
  path = pathlib.Path(options.script)
  fresh = not (config.first_frame or config.video)
  cues = prompt_script.read_script(path, options.line, options.frames, fresh)
  try:
    # The first latent of a restarted chunk is known already.
    chunk = config.chunk - config.restart
    return prompt_script.by_chunk(cues, chunk, num_chunks)
  except UserError as error:
    raise UserError(f'script {path}: {error}') from None


def chunks_aligned(config: 'Config') -> bool:
  """Whether a saved stream, if one goes on, began with whole chunks."""
  if not config.state.resume:
    return True
  head = state_file.read_head(config.state.resume)
  return bool(head['settings']['memory']['aligned'])
