"""Checkpoints: items alone, weights to ship, and clear words for bad ones."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toy as toy

from jaxvid.errors import UserError
from jaxvid.storage import weights
from jaxvid.training import checkpoint, loop
from jaxvid.training.state import TrainState


def make_params():
  return {
    'blocks_0': {'q': {'kernel': jnp.arange(12.0).reshape(3, 4)}},
    'head': {'bias': jnp.linspace(-1, 1, 5).astype(jnp.bfloat16)},
  }


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'weights'
  weights.save(path, make_params(), {'dim': 4})
  return path


def test_weights_come_back(folder):
  config, params = checkpoint.load_params(folder)
  assert config == {'dim': 4}
  jax.tree.map(np.testing.assert_array_equal, params, make_params())
  assert params['head']['bias'].dtype == jnp.bfloat16


def test_weights_cast_both_ways(tmp_path):
  path = tmp_path / 'small'
  weights.save(path, make_params(), {}, dtype='float16')
  _, stored = checkpoint.load_params(path)
  _, wide = checkpoint.load_params(path, dtype='float32')
  assert {leaf.dtype.name for leaf in jax.tree.leaves(stored)} == {'float16'}
  assert {leaf.dtype.name for leaf in jax.tree.leaves(wide)} == {'float32'}


def test_saving_again_replaces(folder):
  weights.save(folder, {'w': jnp.ones(2)}, {'dim': 5})
  config, params = checkpoint.load_params(folder)
  assert config == {'dim': 5} and set(params) == {'w'}
  assert [entry.name for entry in folder.parent.iterdir()] == ['weights']


def test_missing_weights(tmp_path):
  with pytest.raises(UserError, match='no weights at'):
    checkpoint.load_params(tmp_path / 'nowhere')


def test_foreign_folder(tmp_path):
  (tmp_path / 'model.safetensors').write_bytes(b'x')
  with pytest.raises(UserError, match='no jaxvid checkpoint'):
    checkpoint.load_params(tmp_path)


@pytest.mark.parametrize('text', ['{}', '[', '{"format": "other"}', '3'])
def test_foreign_config(folder, text):
  (folder / 'config.json').write_text(text)
  with pytest.raises(UserError, match='not a jaxvid checkpoint'):
    checkpoint.load_params(folder)


def test_every_truncated_file_is_noticed(folder):
  files = [file for file in (folder / 'params').rglob('*') if file.is_file()]
  assert files
  for file in files:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if content else b'x')
    with pytest.raises(UserError, match='damaged'):
      checkpoint.load_params(folder)
    file.unlink()
    with pytest.raises(UserError, match='incomplete'):
      checkpoint.load_params(folder)
    file.write_bytes(content)
  checkpoint.load_params(folder)


def test_unwritable_target(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write weights'):
    weights.save(tmp_path / 'file' / 'w', make_params(), {})


def test_another_model_is_named():
  params = make_params()
  expected = jax.eval_shape(lambda: make_params())
  checkpoint.check_tree(params, expected, 'x')
  wrong = {**params, 'head': {'bias': jnp.zeros(6)}}
  with pytest.raises(UserError, match=r'x: head/bias has shape \(6,\)'):
    checkpoint.check_tree(wrong, expected, 'x')
  with pytest.raises(UserError, match='extra is not part'):
    checkpoint.check_tree({**params, 'extra': jnp.zeros(1)}, expected, 'x')
  with pytest.raises(UserError, match='head/bias is missing'):
    checkpoint.check_tree({'blocks_0': params['blocks_0']}, expected, 'x')


def test_items_of_a_run_are_apart(tmp_path):
  state = loop.train(toy.settings(3), toy.task(), tmp_path)
  folder = tmp_path / 'checkpoints' / '3'
  items = {entry.name for entry in folder.iterdir() if entry.is_dir()}
  assert items == set(checkpoint.ITEMS)
  for item, reference in (('ema', state.ema), ('params', state.params)):
    config, tree = checkpoint.load_params(tmp_path, item)
    assert config == {'model': 'toy'}
    jax.tree.map(np.testing.assert_array_equal, tree, reference)
  data = json.loads((folder / 'data' / 'metadata').read_text())
  assert data == {'next_index': 3}


def test_run_without_checkpoint(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(UserError, match='no finished checkpoint'):
    checkpoint.load_params(tmp_path)


def test_arrays_without_elements_come_back(tmp_path):
  """A stream without a sink remembers no latents of one."""
  video = {'sink': jnp.zeros((2, 0, 4)), 'recent': jnp.ones((2, 3, 4))}
  state = TrainState(jnp.int32(7), make_params(), make_params(), video)
  manager = checkpoint.open_manager(tmp_path)
  checkpoint.save(manager, state, {'at': 7}, {})
  manager.wait_until_finished()
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state
  )
  found, data = checkpoint.restore(manager, template)
  manager.close()
  assert data == {'at': 7} and found.opt_state['sink'].shape == (2, 0, 4)
  jax.tree.map(np.testing.assert_array_equal, found, state)


def test_resuming_another_model_fails_clearly(tmp_path):
  loop.train(toy.settings(2), toy.task(), tmp_path)

  def wider(key):
    params = toy.init(key)
    params['ffn_0']['bias'] = jnp.zeros(17)
    return params

  with pytest.raises(UserError, match='cannot resume'):
    loop.train(toy.settings(4), toy.task(init=wider), tmp_path)


def test_shipped_weights_say_nothing_of_where_they_were_made(tmp_path):
  target = tmp_path / 'somewhere' / 'weights'
  weights.save(target, {'w': jnp.ones((2, 2))}, {})
  for file in target.rglob('*'):
    if file.is_file():
      assert str(tmp_path).encode() not in file.read_bytes(), file
