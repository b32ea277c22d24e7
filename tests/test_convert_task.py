"""The convert task, from the command line to the files."""

import os
import pathlib
import shutil
import subprocess
import sys

import golden
import numpy as np
import pytest
import torch_writer
from safetensors import numpy as safetensors

from jaxvid import config, main
from jaxvid.convert import checkpoint, specs
from jaxvid.errors import UserError
from jaxvid.models.dit import DiTConfig
from jaxvid.models.layers import stack_layers
from jaxvid.storage import weights
from jaxvid.tasks import convert

DIT = golden.path('dit/diffusion_pytorch_model.safetensors')
CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'


def run(source, target, **options):
  convert.run(convert.Config(str(source), str(target), **options))


@pytest.mark.parametrize(
  'name',
  [
    'dit/diffusion_pytorch_model.safetensors',
    'dit/self_forcing_style_bf16.pt',
    'wan_vae/Wan2.1_VAE.pth',
    'taew2_1/taew2_1.pth',
    'umt5/models_t5_umt5-tiny-enc-bf16.pth',
    'lora/lora.pt',
  ],
)
def test_there_and_back(tmp_path, capsys, name):
  source = golden.path(name)
  run(source, tmp_path / 'direct.safetensors')
  run(source, tmp_path / 'ours')
  run(tmp_path / 'ours', tmp_path / 'back.safetensors')
  a = safetensors.load_file(tmp_path / 'direct.safetensors')
  b = safetensors.load_file(tmp_path / 'back.safetensors')
  assert a.keys() == b.keys()
  for key in a:
    assert a[key].dtype == b[key].dtype
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)
  configs = [
    checkpoint.load_checkpoint(path)[0]
    for path in (source, tmp_path / 'back.safetensors')
  ]
  assert configs[0] == configs[1]
  assert f'{len(a)} tensors' in capsys.readouterr().out
  names = {p.name for p in tmp_path.iterdir()}
  assert names == {'direct.safetensors', 'ours', 'back.safetensors'}


def test_saved_config_builds_the_model(tmp_path):
  run(DIT, tmp_path / 'ours', dtype='bfloat16')
  settings, params = weights.load(tmp_path / 'ours')
  model = config.from_dict(DiTConfig, settings['dit'])
  assert model == DiTConfig(96, 192, 2, 2, 256, 32, 16)
  assert params['head']['head']['kernel'].dtype.name == 'bfloat16'


def test_models_trained_together_and_stacked(tmp_path):
  config, params = checkpoint.load_checkpoint(DIT)
  tree = {'dit': stack_layers(params), 'text': {'a': np.zeros(3)}}
  settings = specs.to_json('dit', config) | {'text': {}, 'steps': 5}
  weights.save(tmp_path / 'ours', tree, settings)
  run(tmp_path / 'ours', tmp_path / 'x.safetensors')
  a = safetensors.load_file(tmp_path / 'x.safetensors')
  b = safetensors.load_file(DIT)
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_lora_is_merged_from_either_side(tmp_path):
  lora = str(golden.path('lora/lora.pt'))
  run(DIT, tmp_path / 'a.safetensors', lora=lora, lora_alpha=8.0)
  run(DIT, tmp_path / 'ours')
  run(tmp_path / 'ours', tmp_path / 'b.safetensors', lora=lora, lora_alpha=8.0)
  a = safetensors.load_file(tmp_path / 'a.safetensors')
  b = safetensors.load_file(tmp_path / 'b.safetensors')
  key = 'blocks.0.self_attn.q.weight'
  reference = golden.load('lora/inputs_outputs.npz')
  golden.assert_close(a[key], reference[f'merged.{key}'])
  np.testing.assert_array_equal(a[key], b[key])


def test_targets_that_hold_something_else(tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='in use'):
    run(DIT, tmp_path / 'full')
  with pytest.raises(UserError, match='is a file'):
    run(DIT, tmp_path / 'full' / 'thesis.txt')
  (tmp_path / 'x.safetensors').mkdir()
  with pytest.raises(UserError, match='is a folder'):
    run(DIT, tmp_path / 'x.safetensors')
  run(DIT, tmp_path / 'ours')
  run(DIT, tmp_path / 'ours')  # An older checkpoint of ours is replaced.
  with pytest.raises(UserError, match='in use'):
    run(tmp_path / 'ours', tmp_path / 'ours')
  assert (tmp_path / 'full' / 'thesis.txt').read_text() == 'mine'


def test_damaged_checkpoint_of_ours(tmp_path):
  run(DIT, tmp_path / 'ours')
  with pytest.raises(UserError, match='holds dit, but no vae'):
    run(tmp_path / 'ours', tmp_path / 'x.safetensors', kind='vae')
  data = max(
    (p for p in (tmp_path / 'ours').rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  data.write_bytes(data.read_bytes()[:-7])
  with pytest.raises(UserError, match='is damaged'):
    run(tmp_path / 'ours', tmp_path / 'x.safetensors')
  data.unlink()
  with pytest.raises(UserError, match='is missing'):
    run(tmp_path / 'ours', tmp_path / 'x.safetensors')
  shutil.rmtree(tmp_path / 'ours' / 'params')
  with pytest.raises(UserError):
    run(tmp_path / 'ours', tmp_path / 'x.safetensors')
  assert {p.name for p in tmp_path.iterdir()} == {'ours'}


class System:
  def __reduce__(self):
    return os.system, ('touch canary',)


def test_command_line(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  flags = [f'--config={CONFIGS / "convert.py"}', '--config.target=out']
  assert main.main([*flags, f'--config.source={DIT}']) == 0
  assert 'out: dit, 69 tensors, 340,576 parameters' in capsys.readouterr().out
  import pickle

  torch_writer.write_zip('bad.pt', pickle.dumps({'a': System()}, 2))
  pathlib.Path('cut.safetensors').write_bytes(DIT.read_bytes()[:1000])
  flags[1] = '--config.target=new'
  for source, word in (
    ('bad.pt', 'system'),
    ('cut.safetensors', 'cut off'),
    ('nothing.pt', 'no such file'),
  ):
    assert main.main([*flags, f'--config.source={source}']) == 2
    out, err = capsys.readouterr()
    assert word in err and err.count('\n') == 1 and not out
  assert main.main(flags) == 2
  assert 'config.source is required' in capsys.readouterr().err
  assert set(os.listdir()) == {'out', 'bad.pt', 'cut.safetensors'}


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/clear_refs').exists(), reason='needs Linux'
)
def test_memory_stays_below_1_3_checkpoints(tmp_path):
  tests = pathlib.Path(__file__).parent
  script = [sys.executable, str(tests / 'convert_memory.py'), str(tmp_path)]
  env = os.environ | {'PYTHONPATH': f'{tests.parent}{os.pathsep}{tests}'}
  # What is freed goes back to the system at once, so that what shows is held.
  env |= {'MALLOC_MMAP_THRESHOLD_': str(1 << 20)}
  done = subprocess.run(
    script, env=env, capture_output=True, text=True, timeout=600
  )
  assert done.returncode == 0, done.stderr
  lines = [line.split() for line in done.stdout.splitlines()]
  growth = {x[0]: float(x[1]) for x in lines if len(x) == 2}
  ours = {'read': growth.pop('read'), 'write': growth.pop('write')}
  ours['cast'] = growth.pop('cast')
  assert growth.keys() == {'safetensors', 'half', 'orbax', 'back', 'arrays'}
  assert max(growth.values()) <= 1.3, growth
  assert ours['read'] <= 1.4 and max(ours['write'], ours['cast']) <= 0.4, ours
