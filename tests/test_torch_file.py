"""Torch files are read without torch, and nothing in them is ever run."""

import collections
import functools
import os
import pickle
import zipfile

import golden
import ml_dtypes
import numpy as np
import pytest
import torch_writer
from torch_writer import Raw

from jaxvid.convert import torch_file
from jaxvid.errors import UserError
from jaxvid.storage import mapped


def test_golden_files_agree_with_the_same_weights_elsewhere():
  half = torch_file.load(golden.path('dit/self_forcing_style_bf16.pt'))
  half = half['generator_ema']
  from safetensors import numpy as safetensors

  name = golden.path('dit/diffusion_pytorch_model.safetensors')
  full = safetensors.load_file(name)
  assert len(half) == len(full) == 69
  for key, x in full.items():
    expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(half[f'model.{key}'], expected)


def test_containers_views_and_types(tmp_path):
  base = np.arange(24, dtype=np.float32)
  tree = {
    'view': base.reshape(4, 6)[1:, ::2],
    'transposed': base.reshape(4, 6).T,
    'bf16': np.ones((2, 3), ml_dtypes.bfloat16),
    'scalar': np.array(7, np.int64),
    'empty': np.zeros((0, 3), np.float16),
    'flags': np.array([True, False]),
    'plain': [1, -(2**40), 2.5, 'text', None, True, (1, (2,)), {}],
    3: Raw(b'ctorch\nSize\n(K\x02K\x03t\x85R'),
    'dtype': Raw(b'ctorch\nbfloat16\n'),
    'device': Raw(b'ctorch\ndevice\nX\x03\0\0\0cpu\x85R'),
    'bytes': Raw(b'c_codecs\nencode\nX\x02\0\0\0abX\x06\0\0\0latin1\x86R'),
    'set': Raw(b'c__builtin__\nset\n](K\x01K\x02e\x85R'),
    'ordered': Raw(b'ccollections\nOrderedDict\n)R(K\x01K\x02u}K\x03K\x04sb'),
  }
  # A view's base must be the flat storage itself.
  tree['view'] = np.ndarray((3, 3), np.float32, base, 24, (24, 8))
  tree['transposed'] = np.ndarray((6, 4), np.float32, base, 0, (4, 24))
  torch_writer.save(tmp_path / 'x.pt', tree)
  out = torch_file.load(tmp_path / 'x.pt')
  for key in ('view', 'transposed', 'bf16', 'scalar', 'empty', 'flags'):
    np.testing.assert_array_equal(out[key], tree[key])
    assert out[key].dtype == tree[key].dtype, key
  assert out['plain'] == tree['plain']
  assert out[3] == (2, 3) and out['device'] == 'cpu' and out['set'] == {1, 2}
  assert out['dtype'] == ml_dtypes.bfloat16 and out['bytes'] == b'ab'
  assert out['ordered'] == collections.OrderedDict({1: 2})
  # Lazy and read-only; still right after its pages were given back.
  assert not out['bf16'].flags.writeable
  mapped.release(out['transposed'])
  np.testing.assert_array_equal(out['transposed'], tree['transposed'])


def test_parameters_and_untyped_storages(tmp_path):
  base = np.arange(6, dtype=np.float32)
  storages = []
  tensor = torch_writer.tensor(base, storages)
  parameter = (
    b'ctorch._utils\n_rebuild_parameter\n('
    + tensor
    + b'\x89ccollections\nOrderedDict\n)RtR'
  )
  untyped = (
    b'ctorch._utils\n_rebuild_tensor_v3\n(('
    b'X\x07\0\0\0storagectorch.storage\nUntypedStorage\n'
    b'X\x01\0\0\x000X\x03\0\0\0cpuK\x18tQK\x01K\x02\x85K\x01\x85\x89'
    b'ccollections\nOrderedDict\n)Rctorch\nfloat32\ntR'
  )
  data = b'\x80\x02](' + parameter + untyped + b'e.'
  torch_writer.write_zip(tmp_path / 'x.pt', data, storages)
  whole, part = torch_file.load(tmp_path / 'x.pt')
  np.testing.assert_array_equal(whole, base)
  np.testing.assert_array_equal(part, base[1:3])


class Reduce:
  """Pickles to a call of `function(*args)`."""

  def __init__(self, function, *args):
    self.call = (function, args)

  def __reduce__(self):
    return self.call


CANARY = 'JAXVID_TEST_CANARY'


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize(
  ('value', 'named'),
  [
    (Reduce(os.system, f'touch {CANARY}'), r'(posix|nt)\.system'),
    (Reduce(eval, f'open({CANARY!r}, "w")'), r'\.eval'),
    (Reduce(exec, 'x'), r'\.exec'),
    (Reduce(getattr, 'x', 'y'), r'\.getattr'),
    (np.zeros(2), r'numpy.*\._?(reconstruct|frombuffer)'),
    (np.float32(1), r'numpy.*\.scalar'),
    (functools.partial(print, 1), r'functools\.partial'),
    ({'a': [(1, {'b': Reduce(os.getcwd)})]}, r'\.getcwd'),
    (collections.Counter('aab'), r'collections\.Counter'),
    (collections.defaultdict(list), r'collections\.defaultdict'),
  ],
)
def test_hostile_pickles_are_refused_by_name(
  tmp_path, monkeypatch, value, named, protocol
):
  monkeypatch.chdir(tmp_path)
  data = pickle.dumps({'model.x': value}, protocol)
  torch_writer.write_zip(tmp_path / 'x.pt', data)
  with pytest.raises(UserError, match=named) as error:
    torch_file.load(tmp_path / 'x.pt')
  assert '\n' not in str(error.value)
  assert os.listdir(tmp_path) == ['x.pt']


@pytest.mark.parametrize(
  'data',
  [
    b'(Vtouch x\nios\nsystem\n.',  # INST
    b'(cos\nsystem\nVtouch x\no.',  # OBJ
    b'cos\nsystem\n)\x81.',  # NEWOBJ
    b'\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.',  # NEWOBJ_EX
    b'\x82\x01.',  # EXT1
    b'}}(X\x01\0\0\0aK\x01ub.',  # BUILD on a plain dict
    b'ctorch\nSize\n}(X\x0c\0\0\0__defaults__K\x01ub.',  # BUILD on a function
    b'ctorch\nSize\n)\x81.',  # NEWOBJ of an allowed name
    b'cjaxvid.convert.torch_file\nload\nX\x01\0\0\0a\x85R.',
    b'cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R.',  # 2**44 bytes
    b'X\x01\0\0\0aQ.',  # a persistent id that is no storage
    b'}(K\x01',  # cut off
    b'}u.',  # no mark
    b'K\x01K\x02.',  # two results
    b'h\x05.',  # empty memo
    b'}K\x01a.',  # append to a dict
    b'}]K\x01s.',  # a list as a key
    b'\xff.',
    b'',
  ],
)
def test_strange_pickles_are_refused(tmp_path, data):
  torch_writer.write_zip(tmp_path / 'x.pt', data)
  with pytest.raises(UserError, match=r'x\.pt'):
    torch_file.load(tmp_path / 'x.pt')


def test_deep_pickles_do_not_exhaust_the_stack(tmp_path):
  deep = b')' + b'\x85' * 200_000
  for data in (deep + b'.', b'}' + deep + b'K\x01s.', b']' * 200_000 + b'.'):
    torch_writer.write_zip(tmp_path / 'x.pt', data)
    try:
      torch_file.load(tmp_path / 'x.pt')
    except UserError:
      pass


@pytest.mark.parametrize(
  'args',
  [
    '(%sK\x00K\x09\x85K\x01\x85\x89}tR',  # 9 of 6 numbers
    '(%sK\x05K\x02\x85K\x01\x85\x89}tR',  # starts too late
    '(%sJ\xff\xff\xff\xffK\x02\x85K\x01\x85\x89}tR',  # starts before
    '(%sK\x00K\x02\x85J\xff\xff\xff\xff\x85\x89}tR',  # walks backwards
    '(%sK\x00K\x02\x85K\x01K\x01\x86\x89}tR',  # sizes and strides disagree
    '(%sK\x00\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00\x85K\x00\x85\x89}tR',
    '(K\x01K\x00))\x89}tR',  # no storage
  ],
)
def test_tensors_stay_inside_their_storage(tmp_path, args):
  storage = (
    b'(X\x07\0\0\0storagectorch\nFloatStorage\n'
    b'X\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ'
  )
  args = args.encode('latin1').replace(b'%s', storage)
  data = b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n' + args + b'.'
  torch_writer.write_zip(tmp_path / 'x.pt', data, [np.zeros(6, np.float32)])
  with pytest.raises(UserError, match='cut off or damaged'):
    torch_file.load(tmp_path / 'x.pt')


def test_truncated_files(tmp_path):
  whole = golden.path('lora/lora.pt').read_bytes()
  for part in (0, 1, 40, 2000, len(whole) // 2, len(whole) - 1):
    (tmp_path / 'x.pt').write_bytes(whole[:part])
    with pytest.raises(UserError, match=r'x\.pt') as error:
      torch_file.load(tmp_path / 'x.pt')
    assert '\n' not in str(error.value)


def test_bytes_lost_inside_the_file(tmp_path):
  whole = bytearray(golden.path('lora/lora.pt').read_bytes())
  del whole[3000:60_000]
  (tmp_path / 'x.pt').write_bytes(whole)
  with pytest.raises(UserError, match='damaged'):
    torch_file.load(tmp_path / 'x.pt')


def test_other_files(tmp_path):
  path = tmp_path / 'x.pt'
  with pytest.raises(UserError, match='no such file'):
    torch_file.load(path)
  path.write_bytes(pickle.dumps({'a': 1}))
  with pytest.raises(UserError, match='before 1'):
    torch_file.load(path)
  path.write_bytes(b'\0' * 257 + b'ustar' + b'\0' * 300)
  with pytest.raises(UserError, match='before 1'):
    torch_file.load(path)
  path.write_bytes(b'hello, this is text')
  with pytest.raises(UserError, match='not a torch checkpoint'):
    torch_file.load(path)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('readme.txt', 'hi')
  with pytest.raises(UserError, match='not a torch checkpoint'):
    torch_file.load(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a/data.pkl', b'}.')
  with pytest.raises(UserError, match='compressed'):
    torch_file.load(path)
  (tmp_path / 'folder.pt').mkdir()
  with pytest.raises(UserError, match=r'folder\.pt'):
    torch_file.load(tmp_path / 'folder.pt')


def test_big_endian_files_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.pt', 'w') as archive:
    archive.writestr('a/data.pkl', b'}.')
    archive.writestr('a/byteorder', b'big')
  with pytest.raises(UserError, match='big-endian'):
    torch_file.load(tmp_path / 'x.pt')
