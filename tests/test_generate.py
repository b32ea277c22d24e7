"""The main job, with a tiny model of random weights."""

import dataclasses
import json
import pathlib
import re
import signal
import sys
import time

import jax
import numpy as np
import processes
import pytest
import tiny_bundle
import torch_writer

from jaxvid import config as config_lib
from jaxvid import config_files, main
from jaxvid.convert import checkpoint as published
from jaxvid.convert import safetensors_file
from jaxvid.data import video
from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError, UserNotice
from jaxvid.memory import MemoryConfig
from jaxvid.models import tae, vae
from jaxvid.models.dit import WAN_1_3B
from jaxvid.stream.stream import Settings
from jaxvid.tasks import budget, bundle, generate, player
from jaxvid.tasks.generate import Config


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return str(tiny_bundle.write(tmp_path_factory.mktemp('weights')))


@pytest.fixture
def make(weights, tmp_path):
  def make(**settings):
    defaults = dict(
      prompt='a red circle moves left',
      weights=weights,
      schedule='1',
      decoder='tae',
      seconds=1.0,
      output=str(tmp_path / 'out' / 'a.mp4'),
    )
    return Config(**(defaults | settings))

  return make


def test_writes_a_video_and_a_sheet_and_prints_both(make, tmp_path, capsys):
  config = make(upscale=2)
  generate.run(config)
  printed = capsys.readouterr()
  path = pathlib.Path(config.output)
  assert printed.out.splitlines() == [
    f'video: {path}',
    f'contact sheet: {path.with_suffix(".png")}',
  ]
  assert '17/17 frames' in printed.err
  assert re.search(r'first frame after \d+\.\d+ s', printed.err)
  assert {p.name for p in path.parent.iterdir()} == {'a.mp4', 'a.png'}
  frames = video.read_video(path, 32, 64)
  assert frames.shape == (17, 32, 64, 3) and frames.std() > 1
  # Three rows of four frames, each twice the size, and the gaps.
  assert video.read_image(path.with_suffix('.png'), 112, 276).std() > 1
  again = dataclasses.replace(config, output=str(tmp_path / 'b.mp4'))
  generate.run(again)
  assert path.read_bytes() == (tmp_path / 'b.mp4').read_bytes()
  other = dataclasses.replace(again, seed=1)
  generate.run(other)
  assert path.read_bytes() != (tmp_path / 'b.mp4').read_bytes()


def test_continues_a_video_and_a_picture(make, tmp_path, capsys):
  """A video goes on after its last frame; a picture is the first frame."""
  source = tmp_path / 'source.mp4'
  ramp = np.linspace(0, 255, 30).astype(np.uint8)
  frames = np.broadcast_to(ramp[:, None, None, None], (30, 16, 32, 3))
  with video.writer(source) as write:
    write(frames)
  config = make(video=str(source))
  generate.run(config)
  whole = video.read_video(config.output, 16, 32)
  assert len(whole) == 30 + 16
  assert np.abs(whole[:30].astype(int) - frames).mean() < 6
  picture = pathlib.Path(config.output).with_suffix('.png')
  config = make(first_frame=str(picture), memory_gb=1.0)
  with pytest.warns(UserNotice, match='resized and cropped'):
    generate.run(config)
  assert len(video.read_video(config.output, 16, 32)) == 17
  assert 'memory: text encoder' in capsys.readouterr().err


def test_teacher_makes_a_whole_clip(make, capsys):
  config = make(schedule='teacher', steps=3, guidance=3.0, seconds=0.5)
  generate.run(config)
  assert '3/3 ticks' in capsys.readouterr().err
  assert len(video.read_video(config.output, 16, 32)) == 9


@pytest.mark.filterwarnings('default:the prompt has')
def test_long_prompts_are_cut_with_one_line(make, monkeypatch, capsys):
  config = make(prompt='a red circle moves left ' * 200 + 'unicorn')
  monkeypatch.setattr(main, 'run', lambda argv: generate.run(config))
  assert main.main([]) == 0
  lines = capsys.readouterr().err.splitlines()
  (line,) = [line for line in lines if 'is cut to 12' in line]
  assert line.startswith('jaxvid: warning: the prompt has')
  assert any("does not know 'unicorn'" in line for line in lines)


def test_explain_needs_no_weights(make, capsys):
  generate.run(make(schedule='4322222', seconds=5.0, explain=True, weights=''))
  text = capsys.readouterr().out
  assert '17 ticks + 0 extra = 17 denoiser calls' in text


@pytest.mark.parametrize(
  ('seconds', 'frames', 'latents'),
  [(5, 81, 21), (60, 961, 241), (1, 17, 5), (0.01, 1, 1)],
)
def test_length(seconds, frames, latents):
  assert generate.count_frames(Config(seconds=seconds)) == (frames, latents)
  more, new = generate.count_frames(Config(seconds=seconds, video='a.mp4'))
  assert more == max(1, round(16 * seconds)) and 4 * new >= more
  more, new = generate.count_frames(Config(seconds=seconds, first_frame='a'))
  assert more == 4 * new


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(prompt=' \n'), 'the prompt is empty'),
    (dict(seconds=0.0), 'seconds must be positive'),
    (dict(seconds=float('nan')), 'seconds must be positive'),
    (dict(schedule='4302'), "digit '0'"),
    (dict(window=2), 'smaller than chunk 3'),
    (dict(chunk=0), 'impossible memory'),
    (dict(upscale=0), 'upscale'),
    (dict(guidance=float('inf')), 'guidance'),
    (dict(seed=-1), 'seed'),
    (dict(output='a.avi'), '.mp4'),
    (dict(output='/dev/null/a.mp4'), 'is not a folder'),
    (dict(first_frame='a.png', video='a.mp4'), 'not both'),
    (dict(schedule='teacher', video='a.mp4'), 'only streams'),
    (dict(weights='nothing'), 'no weights at'),
    (dict(weights=''), 'weights is empty'),
    (dict(height=40), r'multiple of 16, not 40 \(nearest: 32\)'),
    (dict(decoder='vae'), 'holds no vae'),
    (dict(first_frame='missing.png'), 'No such file'),
    (dict(lora='a.pt'), 'go with folders of Wan2.1'),
    (dict(memory_gb=1e-6), 'is too little'),
  ],
)
def test_bad_input_is_one_line(make, settings, message, tmp_path):
  config = make(**settings)
  with pytest.raises(UserError, match=message) as error:
    generate.run(config)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.rglob('*.mp4'))


def test_hub_ids_ask_for_the_extra(make, monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r'jaxvid\[hub\]'):
    generate.run(make(weights='owner/name'))


def test_damaged_and_foreign_weights_are_one_line(make, tmp_path):
  folder = tiny_bundle.write(tmp_path)
  files = [p for p in (tmp_path / 'tae').rglob('*') if p.is_file()]
  biggest = max(files, key=lambda p: p.stat().st_size)
  biggest.write_bytes(biggest.read_bytes()[:-7])
  with pytest.raises(UserError, match='damaged'):
    generate.run(make(weights=str(folder)))
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(UserError, match='neither a jaxvid bundle'):
    generate.run(make(weights=str(empty)))
  (empty / 'config.json').write_text('{"format": "jaxvid-bundle-1"}')
  with pytest.raises(UserError, match='is no bundle'):
    generate.run(make(weights=str(empty)))


@pytest.fixture(scope='module')
def wan_folder(weights, tmp_path_factory):
  """Official names, in one folder, with a transformer of another file."""
  ours = bundle.open_bundle(weights)
  folder = tmp_path_factory.mktemp('published') / 'Wan2.1'
  places = {
    'dit': folder / 'other' / 'generator.safetensors',
    'text': folder / 'models_t5_tiny.safetensors',
    'tae': folder / 'taew2_1.safetensors',
  }
  for kind, file in places.items():
    file.parent.mkdir(parents=True, exist_ok=True)
    published.to_safetensors(ours.read(kind), file, ours.configure(kind))
  spiece = folder / 'google' / 'umt5-xxl' / 'spiece.model'
  spiece.parent.mkdir(parents=True)
  tokens = bundle.PACKAGED / 'shapes_tokenizer' / 'spiece.model'
  spiece.write_bytes(tokens.read_bytes())
  return folder


def test_wan_folder_is_read_like_a_bundle(weights, wan_folder):
  ours = bundle.open_bundle(weights)
  wan = bundle.open_bundle(str(wan_folder), 'other/generator.safetensors')
  for kind in ('dit', 'text', 'tae'):
    assert wan.configure(kind) == ours.configure(kind)
    same = jax.tree.map(np.array_equal, wan.read(kind), ours.read(kind))
    assert all(jax.tree.leaves(same))
  assert wan.size == (480, 832)
  assert wan.tokenizer()(['a'])[0].shape == (1, 512)
  with pytest.raises(UserError, match='no checkpoint'):
    bundle.open_bundle(str(wan_folder), 'none.pt').read('dit')


def test_choice_of_ema_and_strength_of_an_adapter(weights, wan_folder, make):
  """Both reach the published checkpoint from a config of the main job."""
  file = wan_folder / 'other' / 'generator.safetensors'
  plain = {k: x.copy() for k, x in safetensors_file.load(file)[0].items()}
  trained = {key: x + 1 for key, x in plain.items()}
  tree = {'generator': trained, 'generator_ema': plain}
  torch_writer.save(wan_folder / 'both.pt', tree)
  settings = dataclasses.asdict(tiny_bundle.DIT)
  (wan_folder / 'config.json').write_text(json.dumps(settings))
  key, where = 'blocks.0.self_attn.q', ('blocks_0', 'self_attn', 'q', 'kernel')
  dim = tiny_bundle.DIT.dim
  pair = {
    f'base_model.model.{key}.lora_A.weight': np.ones((2, dim), np.float32),
    f'base_model.model.{key}.lora_B.weight': np.ones((dim, 2), np.float32),
  }
  torch_writer.save(wan_folder / 'lora.pt', pair)

  def kernel(**options):
    options = {'weights': str(wan_folder), 'checkpoint': 'both.pt'} | options
    tree = player.open_model(make(**options)).read('dit')
    for name in where:
      tree = tree[name]
    return tree

  average = kernel()
  np.testing.assert_array_equal(kernel(use_ema=True), average)
  np.testing.assert_allclose(kernel(use_ema=False), average + 1)
  # A @ B is 2 everywhere, at a strength of 4 of rank 2 twice that.
  np.testing.assert_allclose(kernel(lora='lora.pt'), average + 2, rtol=1e-5)
  strong = kernel(lora='lora.pt', lora_alpha=4.0)
  np.testing.assert_allclose(strong, average + 4, rtol=1e-5)
  with pytest.raises(UserError, match='lora_alpha=4 needs a lora'):
    kernel(lora_alpha=4.0)
  for option in ({'use_ema': True}, {'lora_alpha': 1.0}):
    with pytest.raises(UserError, match='is a jaxvid bundle'):
      player.open_model(make(**option))


def test_matrices_take_the_compute_type_and_the_rest_stays_exact(weights):
  params = bundle.open_bundle(weights).place('dit', 'bfloat16')
  block = params['blocks_0']
  assert block['self_attn']['q']['kernel'].dtype == 'bfloat16'
  assert block['modulation'].dtype == 'float32'
  assert params['time_embedding_0']['kernel'].dtype == 'float32'
  shapes = bundle.open_bundle(weights).shapes('dit', 'bfloat16')
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), *(params, shapes)
  )


def _needs(decoder, codec, chunk=3):
  memory = MemoryConfig(30, 52, 3, 9)
  settings = Settings(
    WAN_1_3B, memory, schedules.self_forcing(), dtype='bfloat16'
  )
  kept, tick = budget.stream_bytes(settings)
  # Known: 0.2875 GB of keys and values per latent frame, 94 MB per prompt.
  assert kept == pytest.approx(12 * 0.2875e9 + 0.094e9, rel=0.01)
  decode = budget.decode_bytes(codec, 480, 832)
  return budget.Needs(11.4e9, 2.84e9, decoder, kept, tick, decode, chunk)


def test_budget_of_a_whole_clip_of_the_1_3b_teacher():
  """With guidance, on one device that also holds the text encoder."""
  memory = MemoryConfig(30, 52, 0, 21, 21)
  settings = Settings(
    WAN_1_3B, memory, schedules.teacher(), 6.0, False, 'bfloat16'
  )
  kept, tick = budget.stream_bytes(settings)
  # Logits, kept in blocks of at most 2**29 bytes, and their weights.
  assert 1e9 < tick < 6e9
  decode = budget.decode_bytes(vae.WAN_VAE, 480, 832)
  needs = budget.Needs(11.4e9, 2.84e9, 0.25e9, kept, tick, decode, 3)
  measures = budget.plan(needs, 16.0, False)
  assert not measures.text_on_host and measures.decode >= 1
  assert budget.plan(needs, 10.0, False).text_on_host


def test_budget_gives_up_only_what_it_must():
  wan = _needs(0.25e9, vae.WAN_VAE)
  assert budget.plan(wan, 0.0, False) == budget.Measures(False, 3)
  roomy = budget.plan(wan, 40.0, False)
  assert not roomy.text_on_host and roomy.decode == 3
  small = dataclasses.replace(wan, tick=int(1e9))
  tight = budget.plan(small, small.peak(1) / 1e9 + 0.01, False)
  assert tight.decode == 1
  assert any('1 latent frame' in note for note in tight.notes)
  tiny = dataclasses.replace(small, decode=int(0.1e9))
  moved = budget.plan(tiny, 9.0, False)
  assert moved.text_on_host and 'runs on the host' in moved.notes[0]
  with pytest.raises(UserError, match=r'too little: about 11\.4 GB'):
    budget.plan(tiny, 9.0, host=True)
  with pytest.raises(UserError, match=r'too little.*transformer 2\.84 GB'):
    budget.plan(wan, 4.0, False)
  fast = _needs(0.02e9, tae.TAEW2_1)
  assert fast.decode < wan.decode


CONFIGS = sorted(
  name
  for name in config_files.available_configs()
  if config_files.load_config(name)[0].task == 'generate'
)


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_are_possible(name, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  made, doc = config_files.load_config(name)
  values = made.to_dict()
  assert name in doc and values.pop('task') == 'generate'
  config = config_lib.from_dict(Config, {**values, 'prompt': 'a red circle'})
  request = generate.check(config)
  assert request.num_frames in (81, 481, 961)
  assert request.output == pathlib.Path('outputs/a-red-circle.mp4')


def command(config):
  """The command line of a config, in a process of its own."""
  base = pathlib.Path(config.output).parent.with_name('config.py')
  base.write_text(
    'from ml_collections import config_dict\n'
    "get_config = lambda: config_dict.ConfigDict({'task': 'generate'})\n"
  )
  values, default = dataclasses.asdict(config), dataclasses.asdict(Config())
  flags = [
    f'--config.{key}={value}'
    for key, value in values.items()
    if value != default[key]
  ]
  return [sys.executable, '-m', 'jaxvid.main', f'--config={base}', *flags]


def test_ctrl_c_exits_130_and_the_finished_part_plays(make):
  config = make(seconds=100000.0, positions='relative')
  with processes.started(command(config)) as process:
    for line in process.stderr:
      if 'frames/s' in line:
        break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=300)
  assert process.returncode == 130, errors
  assert 'Traceback' not in errors and 'which are kept' in errors
  path = pathlib.Path(config.output)
  assert f'video: {path}' in out
  assert len(video.read_video(path, 16, 32)) >= 9
  assert sorted(p.name for p in path.parent.iterdir()) == ['a.mp4', 'a.png']


def test_full_disk_exits_2_with_one_line_and_leaves_nothing(make):
  """A file-size limit acts like a disk that fills up."""
  config = make(seconds=100000.0, positions='relative', seed=1)
  limit = ['sh', '-c', 'ulimit -f 200; exec "$@"', 'sh']
  with processes.started([*limit, *command(config)]) as process:
    _, errors = process.communicate(timeout=300)
  assert process.returncode == 2, errors
  assert 'Traceback' not in errors
  assert errors.splitlines()[-1].startswith('jaxvid: error: cannot write')
  assert list(pathlib.Path(config.output).parent.iterdir()) == []
