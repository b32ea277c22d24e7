"""The main job: a sentence in, a streamed video out.

Writes an H.264 mp4 while the frames arrive, and a contact sheet beside it.
"""

import dataclasses
import math
import pathlib
import re
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxvid.data import files, picture, tokenizer, video
from jaxvid.diffusion import describe
from jaxvid.diffusion.chunk_noise import FRESH, StartNoise
from jaxvid.diffusion.schedule import Schedule, Update
from jaxvid.errors import UserError
from jaxvid.memory import MemoryConfig
from jaxvid.memory.bank_config import BankConfig
from jaxvid.tasks import steering
from jaxvid.tasks.progress import progress, say
from jaxvid.tasks.steering import Saving, Switching

if TYPE_CHECKING:
  from jaxvid.tasks import player

FPS = video.FPS
STRIDE = 4  # video frames per latent frame


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    prompt: what to show.
    negative_prompt: what guidance leads away from; may stay empty.
    seconds: length of the video, 16 frames per second.
    seed: same seed, same video, bit for bit.
    output: the mp4; empty: `outputs/` and the first words of the prompt.
    upscale: every pixel becomes a square of this size in the files.
    weights: a model that ships with the library (`shapes`), a folder, or a
      hub id (`owner/name`, needs the `hub` extra).
    checkpoint: file, also inside the folder, whose transformer replaces the
      folder's own.
    use_ema: which transformer of a training checkpoint; none: the averaged
      one if there is any.
    lora: LoRA file merged into the transformer.
    lora_alpha: strength of the LoRA; none: as stored, else its rank.
    quantization: transformer in 8 bits: `int8` (weights alone) or `w8a8`
      (inputs too), made as it is loaded; `fp8` for bundles calibrated by
      configs/quantize.py. Empty: as its weights are.
    decoder: `tae` (fast) or `vae` (exact).
    decoder_device: index of the device that decodes while the first one
      denoises; none: the same.
    height: of the frames in pixels; 0 for the model's own.
    width: of the frames in pixels; 0 for the model's own.
    schedule: digits (`4322222`), raw time steps (`1000,750,500,250`), or
      self_forcing, causvid, legacy, euler, magi, pavdm, teacher (the whole
      clip at once).
    shift: of raw time steps; 0 for the default, 5.
    commit: `clean`, `last`, `extra(t)`; empty for the schedule's own rule.
    cyclic: longer videos repeat the whole schedule, not its last chunk.
    warped: listed time steps are shifted already.
    table: snap noise levels to the published table (parity only).
    steps: of `euler` (16), `teacher` (50), `magi` (64) and `pavdm` (48); 0
      for these.
    solver: of `teacher`.
    flight: chunks denoised at once by `magi` (4) and `pavdm` (8); 0 for these.
    guidance: weight w in u + w (c - u); 1 is off and twice as fast.
    chunk: latent frames denoised together (4 frames each).
    sink: first latent frames, always remembered.
    window: latent frames remembered, the current chunk included.
    positions: `absolute` or `relative` (to the window; for endless videos).
    key_dtype: of the memory's keys; `e4m3` halves their room, see
      `MemoryConfig`.
    bank: further past chunks are seen again when their prompts are like the
      current one; none: only sink and window are remembered.
    noise: what chunks begin from: noise of their own, or shared and shuffled.
    restart: every chunk begins with the frame that the last one ended on,
      encoded alone (BlockVid's chunks of 1 + T frames).
    first_frame: picture that the video starts from.
    starter: text-to-video model that makes the first frame, for models that
      start from one, where no picture is given.
    recycled: whether the model must recycle frames (AAPT).
    video: video file that is continued.
    switch: how the prompt changes meanwhile.
    state: where the stream is kept, and what it goes on from.
    memory_gb: device memory to stay within; 0 for no limit.
    dtype: of the computation; empty: bfloat16 on a GPU, float32 elsewhere.
    fast: parameters in the streaming layout (`models.fused`).
    deferred: the extra tick of a chunk, if the schedule has one, runs inside
      the next chunk's first tick, and frames leave one pass earlier.
    exported: keep the traced stream beside the weights, for a quicker start.
    explain: print the schedule and stop.
  """

  prompt: str = ''
  negative_prompt: str = ''
  seconds: float = 5.0
  seed: int = 0
  output: str = ''
  upscale: int = 1
  weights: str = 'shapes_diagdistill'
  checkpoint: str = ''
  use_ema: bool | None = None
  lora: str = ''
  lora_alpha: float | None = None
  quantization: Literal['', 'int8', 'w8a8', 'fp8'] = ''
  decoder: Literal['tae', 'vae'] = 'vae'
  decoder_device: int | None = None
  height: int = 0
  width: int = 0
  schedule: str = '4322222'
  shift: float = 0.0
  commit: str = ''
  cyclic: bool = False
  warped: bool = False
  table: bool = False
  steps: int = 0
  solver: Update = 'unipc'
  flight: int = 0
  guidance: float = 1.0
  chunk: int = 3
  sink: int = 3
  window: int = 9
  positions: Literal['absolute', 'relative'] = 'absolute'
  key_dtype: Literal['', 'e4m3'] = ''
  bank: BankConfig | None = None
  noise: StartNoise = FRESH
  restart: bool = False
  first_frame: str = ''
  starter: str = ''
  recycled: bool = False
  video: str = ''
  switch: Switching = dataclasses.field(default_factory=Switching)
  state: Saving = dataclasses.field(default_factory=Saving)
  memory_gb: float = 0.0
  dtype: Literal['', 'float32', 'bfloat16'] = ''
  fast: bool = True
  deferred: bool = False
  exported: bool = False
  explain: bool = False


class Request(NamedTuple):
  """A config that was found possible.

  Attributes:
    prompt: cleaned.
    schedule: of the ticks.
    num_frames: frames to write.
    num_chunks: chunks that hold them (1 for a whole clip at once).
    chunk: latent frames per chunk (of the clip, if at once).
    output: the mp4.
    sheet: the contact sheet.
    cues: chunk -> prompt that begins there, the first prompt apart.
    steered: the stream may be changed or kept while it plays.
  """

  prompt: str
  schedule: Schedule
  num_frames: int
  num_chunks: int
  chunk: int
  output: pathlib.Path
  sheet: pathlib.Path
  cues: dict[int, str]
  steered: bool


def run(config: Config) -> None:
  """Checks everything that is quick to check, then makes the video."""
  request = check(config)
  if config.explain:
    print(
      describe.explain(
        request.schedule, request.num_chunks, request.chunk, config.guidance
      )
    )
    return
  from jaxvid.tasks import player  # Loads models; not needed to explain.

  write(config, request, player.prepare(config, request))


def check(config: Config) -> Request:
  """Finds mistakes before anything is loaded; UserError names the first."""
  schedule = describe.build(
    describe.Spec(
      config.schedule,
      config.shift,
      config.commit,
      config.cyclic,
      config.warped,
      config.table,
      config.steps,
      config.solver,
      config.flight,
    )
  )
  num_frames, latents = count_frames(config)
  chunk = latents if schedule.bidirectional else config.chunk
  _check_numbers(config)
  # The window's own rules, whatever the size of the picture.
  MemoryConfig(
    1,
    1,
    config.sink,
    config.window,
    config.chunk,
    config.positions,
    bank=config.bank,
    key_dtype=config.key_dtype,
  )
  if config.first_frame and config.video:
    raise UserError('give first_frame or video, not both')
  if schedule.bidirectional and (config.first_frame or config.video):
    raise UserError(
      'schedule=teacher makes whole clips; only streams start from a picture '
      'or a video'
    )
  num_chunks = -(-latents // chunk)
  if config.restart:
    steering.check_restart(config, schedule)
    num_chunks = steering.restarted_chunks(config, num_frames)
  cues = steering.check(config, schedule, num_chunks)
  first = cues.pop(0, config.prompt)
  output = output_path(config, first)
  prompt = ''
  if not config.explain:
    if not config.state.resume:
      prompt = tokenizer.check_prompt(first)
    for path in (output, output.with_suffix('.png')):
      files.check_writable(path)
  return Request(
    prompt=prompt,
    schedule=schedule,
    num_frames=num_frames,
    num_chunks=num_chunks,
    chunk=chunk,
    output=output,
    sheet=output.with_suffix('.png'),
    cues=cues,
    steered=steering.wanted(config),
  )


def _check_numbers(config: Config) -> None:
  if config.upscale < 1:
    raise UserError(f'upscale must be at least 1, not {config.upscale}')
  if not math.isfinite(config.guidance):
    raise UserError(f'guidance must be a number, not {config.guidance}')
  if not 0 <= config.seed < 2**63:
    raise UserError(f'seed must be from 0 to 2**63 - 1, not {config.seed}')


def count_frames(config: Config) -> tuple[int, int]:
  """New frames of the video, and latent frames that hold them.

  A video has 4 n + 1 frames (5 s: 81); one that starts from a picture has
  that frame already, and one that is continued gets whole seconds more.
  """
  if not 0 < config.seconds < math.inf:
    raise UserError(f'seconds must be positive, not {config.seconds:g}')
  frames = max(1, round(FPS * config.seconds))
  latents = -(-(frames - 1) // STRIDE)
  if config.video:
    return frames, -(-frames // STRIDE)
  if config.first_frame or config.starter:
    return STRIDE * max(1, latents), max(1, latents)
  return STRIDE * latents + 1, latents + 1


def output_path(config: Config, prompt: str) -> pathlib.Path:
  """The mp4: as given, or named after the prompt."""
  if not config.output:
    words = re.findall(r'\w+', prompt.lower())[:8]
    return pathlib.Path('outputs') / f'{"-".join(words)[:60] or "video"}.mp4'
  path = pathlib.Path(config.output).expanduser()
  if path.suffix.lower() != '.mp4':
    raise UserError(f'output must be a .mp4 file, not {config.output!r}')
  return path


def write(
  config: Config, request: Request, playback: 'player.Playback'
) -> None:
  """Writes the frames as they come, then the contact sheet.

  Ctrl-C keeps what was written so far, as a video that plays.
  """
  total, done, shown = playback.total or request.num_frames, 0, {}
  wanted = set(picture.sheet_indices(total))
  clock = Clock()
  try:
    with (
      video.writer(request.output, FPS, config.upscale) as put,
      progress(total, 'frames') as update,
    ):
      for frames in playback.before:
        put(frames)
      clock = Clock(playback.began)
      for frames in playback.frames:
        frames = frames[0, : total - done]
        clock.tick(done + len(frames))
        put(frames)
        for i in wanted.intersection(range(done, done + len(frames))):
          shown[i] = frames[i - done].copy()
        done += len(frames)
        update(done, clock.rate())
  except KeyboardInterrupt:
    if done:
      say(f'stopped after {done} of {total} frames, which are kept')
      _finish(config, request, shown, clock)
    raise
  _finish(config, request, shown, clock)


def _finish(config: Config, request: Request, shown: dict, clock) -> None:
  """Writes the contact sheet and says what there is."""
  thumbnails = [shown[i] for i in sorted(shown)]
  sheet = picture.contact_sheet(thumbnails, upscale=config.upscale)
  picture.write_png(request.sheet, sheet)
  say(clock.summary())
  print(f'video: {request.output}')
  print(f'contact sheet: {request.sheet}')


class Clock:
  """Times of a stream, from the moment its prompt was ready: now, or then."""

  def __init__(self, began: float | None = None):
    self._began = began or time.perf_counter()
    self._first: tuple[float, int] | None = None
    self._last = (self._began, 0)
    self._gaps: list[float] = []

  def tick(self, done: int) -> None:
    """Notes that `done` frames have reached the host."""
    before, self._last = self._last, (time.perf_counter(), done)
    if self._first:
      self._gaps.append(self._last[0] - before[0])
    self._first = self._first or self._last

  def rate(self) -> str:
    """Frames per second so far."""
    now, done = self._last
    return f'{done / max(now - self._began, 1e-9):.1f} frames/s'

  def summary(self) -> str:
    """One line: how long, how fast, how soon."""
    now, done = self._last
    since, before = self._first or self._last
    text = (
      f'{done} frames in {now - self._began:.2f} s ({self.rate()}), '
      f'first frame after {since - self._began:.2f} s'
    )
    if done > before:
      steady = (done - before) / max(now - since, 1e-9)
      text += f', then {steady:.1f} frames/s'
    if len(self._gaps) > 9:
      gaps = sorted(self._gaps)
      p50, p99 = (1000 * gaps[int(at * len(gaps))] for at in (0.5, 0.99))
      text += f'; a chunk every {p50:.1f} ms (p99 {p99:.1f} ms)'
    return text
