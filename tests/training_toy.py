"""A tiny training task; as a script, one run of it in a process of its own."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.training import loop, optimizer


class Rows:
  """Random-access source: row i depends on i alone."""

  def __len__(self):
    return 50

  def __getitem__(self, index):
    rng = np.random.default_rng(int(index))
    x = rng.standard_normal(6).astype(np.float32)
    return {'x': x, 'y': x[:2] * 3.0, 'index': np.int32(index)}


def init(key):
  a, b = jax.random.split(key)
  return {
    'ffn_0': {
      'kernel': jax.random.normal(a, (6, 16)) / 3,
      'bias': jnp.zeros(16),
    },
    'ffn_2': {
      'kernel': jax.random.normal(b, (16, 2)) / 4,
      'bias': jnp.zeros(2),
    },
  }


def predict(params, x):
  hidden = jnp.tanh(x @ params['ffn_0']['kernel'] + params['ffn_0']['bias'])
  return hidden @ params['ffn_2']['kernel'] + params['ffn_2']['bias']


def loss(params, batch, key):
  noise = 0.1 * jax.random.normal(key, batch['x'].shape)
  error = predict(params, batch['x'] + noise) - batch['y']
  value = jnp.mean(error**2)
  return value, {'first_index': batch['index'][0]}


def quiet_loss(params, batch, key):
  """Without noise: a mean over the batch and nothing else."""
  del key
  return jnp.mean((predict(params, batch['x']) - batch['y']) ** 2), {}


def batches(seed, state):
  import grain

  data = grain.MapDataset.source(Rows()).seed(seed).shuffle().repeat().batch(8)
  iterator = iter(data.to_iter_dataset())
  if state is not None:
    iterator.set_state(state)
  return iterator


def task(**changes):
  parts = {'init': init, 'loss': loss, 'batches': batches} | changes
  return loop.TrainTask(config={'model': 'toy'}, **parts)


def settings(steps, **changes):
  adam = optimizer.OptimizerConfig(learning_rate=0.01, warmup_steps=2)
  parts = {'optimizer': adam, 'save_minutes': 0.0, 'log_every': 5} | changes
  return loop.LoopConfig(steps=steps, **parts)


if __name__ == '__main__':
  folder = pathlib.Path(sys.argv[1])
  loop.train(settings(int(sys.argv[2]), save_every=7), task(), folder)
