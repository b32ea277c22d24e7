"""The mean of several weights is a model like each of them."""

import ml_dtypes
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.storage import weights
from jaxvid.tasks import average


def write(folder, name, value, head='dit', shape=(2, 3)):
  params = {'dit': {'kernel': np.full(shape, value, ml_dtypes.bfloat16)}}
  weights.save(folder / name, params, {head: {'dim': 3}})
  return str(folder / name)


def test_the_mean_is_exact_and_keeps_the_type(tmp_path, capsys):
  places = tuple(write(tmp_path, str(v), v) for v in (1.0, 2.0, 6.0))
  average.run(average.Config(places, str(tmp_path / 'mean')))
  assert 'mean of 3' in capsys.readouterr().out
  head, params = weights.load(tmp_path / 'mean')
  assert head == {'dit': {'dim': 3}}
  kernel = params['dit']['kernel']
  assert kernel.dtype == ml_dtypes.bfloat16 and (kernel == 3).all()


@pytest.mark.parametrize('other', [{'head': 'vae'}, {'shape': (3, 2)}])
def test_different_models_are_refused(tmp_path, other):
  places = write(tmp_path, 'a', 1), write(tmp_path, 'b', 2, **other)
  with pytest.raises(UserError, match='not weights of the same model'):
    average.run(average.Config(places, str(tmp_path / 'mean')))
  assert not (tmp_path / 'mean').exists()


def test_one_folder_is_no_average(tmp_path):
  with pytest.raises(UserError, match='two folders or more'):
    average.run(average.Config((write(tmp_path, 'a', 1),), 'mean'))
