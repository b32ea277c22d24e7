"""The training loop: what a step does, and that a run can be trusted."""

import functools
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toy as toy

from jaxvid.errors import UserError
from jaxvid.training import checkpoint, loop, optimizer, report, state
from jaxvid.training.step import single


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def one_step(settings, task, params, batch, steps=1):
  method = single(
    task.loss, settings.optimizer, settings.steps, settings.microbatches
  )
  update, key = jax.jit(method.update), jax.random.key(1)
  current = method.create(params)
  for i in range(steps):
    now = jax.random.fold_in(key, i)
    current, metrics = update(current, None, batch, now)
  return current, metrics


def make_batch():
  return next(toy.batches(0, None))


def test_ema_is_a_lagging_average():
  old, new = {'w': jnp.zeros(3)}, {'w': jnp.ones(3)}
  early = state.update_ema(old, new, 0, 0.99)['w']
  late = state.update_ema(old, new, 10**6, 0.99)['w']
  np.testing.assert_allclose(early, 0.9, rtol=1e-6)
  np.testing.assert_allclose(late, 0.01, rtol=1e-5)


def test_state_shares_no_buffers():
  params = toy.init(jax.random.key(0))
  tx = optimizer.create(optimizer.OptimizerConfig(), 10)
  step = jax.jit(lambda s: s.replace(step=s.step + 1), donate_argnums=0)
  assert int(step(state.create(params, tx)).step) == 1


def test_every_leaf_moves():
  params = toy.init(jax.random.key(0))
  before = jax.tree.map(np.asarray, params)
  after, _ = one_step(toy.settings(10), toy.task(), params, make_batch())
  moved = jax.tree.map(lambda a, b: np.any(a != b), before, after.params)
  assert all(jax.tree.leaves(moved))


def test_accumulation_equals_a_big_batch():
  task = toy.task(loss=toy.quiet_loss)
  results = [
    one_step(
      toy.settings(10, microbatches=parts),
      task,
      toy.init(jax.random.key(0)),
      make_batch(),
    )
    for parts in (1, 4)
  ]
  (whole, whole_metrics), (parts, parts_metrics) = results
  for name, value in whole_metrics.items():
    np.testing.assert_allclose(value, parts_metrics[name], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    whole.params,
    parts.params,
  )


def test_noise_differs_between_steps():
  params = toy.init(jax.random.key(0))
  seen = []

  def spy(params, batch, key):
    del batch
    return jnp.sum(params['ffn_0']['bias']), {
      'draw': jax.random.uniform(key, ())
    }

  for steps in (1, 2):
    _, metrics = one_step(
      toy.settings(10), toy.task(loss=spy), params, make_batch(), steps
    )
    seen.append(float(metrics['draw']))
  assert seen[0] != seen[1]


def test_decay_spares_shifts_and_scales():
  params = {
    'blocks': {'norm': {'scale': jnp.ones((4, 8))}},
    'head': {'kernel': jnp.ones((8, 2)), 'bias': jnp.ones(2)},
    'modulation': jnp.ones((6, 8)),
  }
  mask = optimizer.decay_mask(params)
  assert mask['head'] == {'kernel': True, 'bias': False}
  assert not mask['modulation'] and not mask['blocks']['norm']['scale']


def test_muon_serves_the_matrices_inside_blocks_alone():
  block = {'kernel': jnp.ones((4, 6)), 'bias': jnp.ones(6)}
  params = {
    'blocks_0': {'self_attn': {'q': block}, 'modulation': jnp.ones((6, 4))},
    'blocks': {'ffn_0': {'kernel': jnp.ones((3, 4, 6))}},
    'head': {'kernel': jnp.ones((4, 6))},
    'patch_embedding': {'kernel': jnp.ones((1, 2, 2, 4, 6))},
  }
  chosen = optimizer.matrices(params)
  assert chosen['blocks_0']['self_attn']['q']['kernel'] is not None
  assert chosen['blocks']['ffn_0']['kernel'] is not None
  rest = (
    chosen['blocks_0']['self_attn']['q']['bias'],
    chosen['blocks_0']['modulation'],
    chosen['head']['kernel'],
    chosen['patch_embedding']['kernel'],
  )
  assert all(spec is None for spec in rest)


def test_muon_steps_alike_in_both_layouts_and_lowers_a_loss():
  config = optimizer.OptimizerConfig(
    kind='muon', learning_rate=0.1, warmup_steps=0, weight_decay=0.0
  )
  tx = optimizer.create(config, 20)
  key = jax.random.key(0)
  stack = jax.random.normal(key, (2, 4, 6))
  layouts = (
    {f'blocks_{i}': {'kernel': stack[i]} for i in range(2)},
    {'blocks': {'kernel': stack}},
  )

  def loss(params):
    return sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(params))

  ends = []
  for params in layouts:
    opt_state = tx.init(params)
    first = loss(params)
    for _ in range(5):
      # The layouts' losses differ by a factor; Muon's steps do not.
      grads = jax.grad(loss)(params)
      updates, opt_state = tx.update(grads, opt_state, params)
      params = optax.apply_updates(params, updates)
    assert loss(params) < first
    ends.append(jnp.concatenate(jax.tree.leaves(params)).reshape(2, 4, 6))
  np.testing.assert_allclose(*ends, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('kind', 'last'), [('cosine', 0.1), ('linear', 0.1), ('constant', 1.0)]
)
def test_schedule_rises_then_falls(kind, last):
  config = optimizer.OptimizerConfig(
    learning_rate=2.0, schedule=kind, warmup_steps=10, final_fraction=0.1
  )
  rate = optimizer.schedule(config, 100)
  assert 0 < rate(0) < rate(5) < rate(10) == 2.0
  np.testing.assert_allclose(rate(100), 2.0 * last, rtol=1e-5)


def test_frozen_parameters_do_not_move():
  config = optimizer.OptimizerConfig(frozen='^text/', warmup_steps=0)
  tx = optimizer.create(config, 10)
  params = {'text': {'kernel': jnp.ones(3)}, 'dit': {'kernel': jnp.ones(3)}}
  opt_state = tx.init(params)
  updates, _ = tx.update(params, opt_state, params)
  after = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(after['text']['kernel'], 1.0)
  assert (after['dit']['kernel'] < 1).all()
  sizes = [leaf.size for leaf in jax.tree.leaves(opt_state)]
  assert sum(size == 3 for size in sizes) == 2  # two moments, one leaf
  with pytest.raises(UserError, match='regular expression'):
    optimizer.OptimizerConfig(frozen='(')


def test_clipping_bounds_the_update():
  config = optimizer.OptimizerConfig(clip_norm=1.0, warmup_steps=0)
  tx = optimizer.create(config, 10)
  params = {'kernel': jnp.ones((2, 2))}
  grads = {'kernel': jnp.full((2, 2), 1e6)}
  _, opt_state = tx.update(grads, tx.init(params), params)
  moment = optax.tree.get(opt_state, 'mu')['kernel']
  np.testing.assert_allclose(np.linalg.norm(moment), 0.1, rtol=1e-5)


def test_resumed_run_equals_one_left_alone(tmp_path):
  whole = loop.train(toy.settings(20), toy.task(), tmp_path / 'whole')
  # The same schedule cut short: a stop signal after the ninth batch.
  seen = []

  def stopping(seed, position):
    inner = toy.batches(seed, position)

    class Iterator:
      def __next__(self):
        seen.append(1)
        if len(seen) == 9:
          signal.raise_signal(signal.SIGINT)
        return next(inner)

      def get_state(self):
        return inner.get_state()

    return Iterator()

  with pytest.raises(KeyboardInterrupt):
    loop.train(toy.settings(20), toy.task(batches=stopping), tmp_path / 'parts')
  saved = tmp_path / 'parts' / 'checkpoints'
  assert [entry.name for entry in saved.iterdir()] == ['9']
  parts = loop.train(toy.settings(20), toy.task(), tmp_path / 'parts')
  assert_same_bits(whole, parts)


def test_killed_run_equals_one_left_alone(tmp_path):
  script = pathlib.Path(toy.__file__)
  command = [sys.executable, str(script), str(tmp_path / 'killed'), '60']
  root = script.parent.parent
  environment = {'PYTHONPATH': str(root), 'PATH': '', 'JAX_PLATFORMS': 'cpu'}
  process = subprocess.Popen(
    command, env=environment, stderr=subprocess.DEVNULL
  )
  saved = tmp_path / 'killed' / 'checkpoints'
  deadline = time.monotonic() + 120
  while not any(saved.glob('[0-9]*')) and time.monotonic() < deadline:
    time.sleep(0.002)
  time.sleep(np.random.default_rng().uniform(0, 0.1))
  process.kill()
  process.wait()
  assert any(saved.glob('[0-9]*'))
  subprocess.run(
    command, env=environment, stderr=subprocess.DEVNULL, check=True
  )
  subprocess.run(
    [*command[:2], str(tmp_path / 'alone'), '60'],
    env=environment,
    stderr=subprocess.DEVNULL,
    check=True,
  )
  for item in ('params', 'ema'):
    _, killed = checkpoint.load_params(tmp_path / 'killed', item)
    _, alone = checkpoint.load_params(tmp_path / 'alone', item)
    assert_same_bits(killed, alone)


def test_time_based_saving_changes_nothing(tmp_path):
  plain = loop.train(toy.settings(6), toy.task(), tmp_path / 'a')
  often = toy.settings(6, save_minutes=1e-9)
  assert_same_bits(plain, loop.train(often, toy.task(), tmp_path / 'b'))


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
  def batches(seed, position):
    inner, count = toy.batches(seed, position), []

    class Iterator:
      def __next__(self):
        count.append(1)
        batch = dict(next(inner))
        batch['y'] = batch['y'] * (np.nan if len(count) > 4 else 1)
        return batch

      def get_state(self):
        return inner.get_state()

    return Iterator()

  with pytest.raises(UserError, match='diverged at step 5'):
    loop.train(
      toy.settings(20, save_every=2), toy.task(batches=batches), tmp_path
    )
  _, params = checkpoint.load_params(tmp_path)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_stages_chain(tmp_path):
  first = loop.train(toy.settings(5), toy.task(), tmp_path / 'first')
  loop.train(
    toy.settings(1, init_from=str(tmp_path / 'first')),
    toy.task(loss=lambda p, b, k: (0.0 * toy.quiet_loss(p, b, k)[0], {})),
    tmp_path / 'second',
  )
  _, second = checkpoint.load_params(tmp_path / 'second')
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3),
    first.ema,
    second,
  )


def test_a_stage_takes_a_part_of_the_weights_before(tmp_path):
  still = toy.task(loss=lambda p, b, k: (0.0 * toy.quiet_loss(p, b, k)[0], {}))
  loop.train(toy.settings(5), toy.task(), tmp_path / 'first')
  fresh = loop.train(toy.settings(1), still, tmp_path / 'fresh').params
  start = {'init_from': str(tmp_path / 'first'), 'init_only': '^ffn_0/'}
  part = loop.train(toy.settings(1, **start), still, tmp_path / 'part').params
  _, first = checkpoint.load_params(tmp_path / 'first')

  def same(a, b):
    close = functools.partial(np.allclose, atol=1e-3)
    return all(jax.tree.leaves(jax.tree.map(close, a, b)))

  assert same(part['ffn_0'], first['ffn_0'])
  assert same(part['ffn_2'], fresh['ffn_2'])
  assert not same(part['ffn_0'], fresh['ffn_0'])
  with pytest.raises(UserError, match='init_from, which is not given'):
    toy.settings(1, init_only='^ffn_0/')
  nothing = {**start, 'init_only': '^other'}
  with pytest.raises(UserError, match='finds nothing'):
    loop.train(toy.settings(1, **nothing), still, tmp_path / 'none')


def test_means_leave_out_what_a_step_does_not_have(tmp_path, monkeypatch):
  """As of a student that waits for its critic."""
  said = {}
  monkeypatch.setattr(
    report.Summaries, 'scalars', lambda _, step, values: said.update(values)
  )

  def loss(params, batch, key):
    value, _ = toy.loss(params, batch, key)
    index = batch['index'][0]
    some = jnp.where(index % 2 == 0, 7.0, jnp.nan)
    return value, {'some': some, 'none': some * jnp.nan}

  loop.train(toy.settings(5), toy.task(loss=loss), tmp_path)
  assert said['some'] == 7 and 'none' not in said


def test_samples_reach_tensorboard(tmp_path):
  def sample(params, key):
    del params, key
    return {'clip': np.zeros((2, 3, 8, 8, 3), np.uint8)}

  loop.train(toy.settings(2, sample_every=1), toy.task(sample=sample), tmp_path)
  (events,) = (tmp_path / 'tensorboard').iterdir()
  assert b'GIF89a' in events.read_bytes()


def test_bad_microbatches_name_the_numbers(tmp_path):
  with pytest.raises(UserError, match='microbatches=3 does not divide'):
    loop.train(toy.settings(1, microbatches=3), toy.task(), tmp_path)
