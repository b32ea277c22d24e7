"""Linear attention: streams equal the parallel form, in a constant memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wan_case
from test_distillation import folder, make_config, make_method  # noqa: F401

from jaxvid.diffusion import schedule as schedules
from jaxvid.errors import UserError
from jaxvid.memory import LinearMemory, MemoryConfig, linear
from jaxvid.models.dit import DiT
from jaxvid.ops import linear_attention
from jaxvid.ops.rope import rotation
from jaxvid.stream import stream, switch
from jaxvid.training import diffusion, distillation, rollout
from jaxvid.training.distill_config import LongConfig

CONFIG = dataclasses.replace(wan_case.config(), linear=True)
EXTRA = schedules.digits('2', commit='extra(100)')


def _settings(schedule=EXTRA, spare=0, **options):
  memory = MemoryConfig(*wan_case.LATENT, 2, 4, 2, spare=spare)
  return stream.Settings(CONFIG, memory, schedule, **options)


def _params(scan):
  return wan_case.stacked_params() if scan else wan_case.unrolled_params()


def _text(seed=0):
  return jax.random.normal(jax.random.key(100 + seed), (1, 5, 32))


def test_the_formula():
  """Features first, rotation in the numerator alone."""
  keys = jax.random.split(jax.random.key(0), 3)
  q, k, v = (jax.random.normal(key, (1, 5, 2, 12)) for key in keys)
  turn = rotation(np.arange(5), 1, 1, 12)
  parts = [linear_attention.features(x, turn) for x in (q, k)]
  out = linear_attention.attend(parts[0], linear_attention.sums(parts[1], v))
  weights = jnp.einsum('btnd,bsnd->bnts', parts[0].turned, parts[1].turned)
  plain = [jnp.maximum(x, 0) for x in (q, k)]
  total = jnp.einsum('btnd,bsnd->bnt', *plain)[..., None]
  expected = jnp.einsum('bnts,bsnd->btnd', weights / (total + 1e-8), v)
  np.testing.assert_allclose(out, expected, rtol=2e-4, atol=1e-5)
  near = rotation(np.arange(5) + 40_000, 1, 1, 12)
  far = [linear_attention.features(x, near) for x in (q, k)]
  again = linear_attention.attend(far[0], linear_attention.sums(far[1], v))
  np.testing.assert_allclose(again, out, atol=2e-3)


@pytest.mark.parametrize('scan', [False, True])
@pytest.mark.parametrize('frames', [6, 5])
def test_streaming_equals_the_parallel_form(scan, frames):
  """Chunks one after the other, all at once, and beside a clean clip."""
  network = DiT(CONFIG, scan=scan)
  params = {'params': _params(scan)}
  apply = jax.jit(lambda *x: network.apply(params, *x))
  keys = jax.random.split(jax.random.key(1), 2)
  noisy, clean = (jax.random.normal(k, (1, frames, 4, 6, 16)) for k in keys)
  t, text = jnp.full((1, frames), 600.0), _text()
  size = (*wan_case.LATENT, CONFIG.head_dim)
  index = np.arange(frames)

  def streamed(x, t, before):
    memory = LinearMemory.create(
      MemoryConfig(*wan_case.LATENT, 2, 4, 2),
      batch=1,
      layers=2,
      heads=2,
      head_dim=48,
      stacked=scan,
    )
    parts = []
    for at in range(0, frames, 2):
      now = slice(at, at + 2)
      v, after = apply(x[:, now], t[:, now], text, memory)
      parts.append(v)
      if before is not None:  # What stays in memory is the clean chunk.
        zero = jnp.zeros_like(t[:, now])
        _, after = apply(before[:, now], zero, text, memory)
      memory = after.advance(x[:, now].shape[1])
    return jnp.concatenate(parts, 1)

  plan = linear.parallel(index, *size, 'diffusion', 2)
  whole, _ = apply(noisy, t, text, None, plan)
  np.testing.assert_allclose(whole, streamed(noisy, t, None), atol=1e-5)
  if frames == 6:
    plan = diffusion.forcing_plan(CONFIG, 'teacher', 2, 6, *wan_case.LATENT)
    both = jnp.concatenate([clean, noisy], 1)
    times = jnp.concatenate([jnp.zeros_like(t), t], 1)
    forced, _ = apply(both, times, text, None, plan)
    np.testing.assert_allclose(
      forced[:, frames:], streamed(noisy, t, clean), atol=1e-5
    )


def _stream(settings, count, text=0):
  params = _params(settings.scan)
  state = stream.init(settings, params, _text(text), jax.random.key(0))
  past, made = switch.new_past(settings, state), []
  step = jax.jit(functools.partial(stream.step, settings))
  for _ in range(count):
    ticks = stream.chunk_ticks(settings.schedule, int(state.chunk))
    state, x0 = step(params, state, ticks)
    past = switch.remember(settings, past, state, x0)
    made.append(x0)
  return state, past, jnp.concatenate(made, 1)


def test_the_memory_never_grows():
  settings = _settings()
  sizes = []
  for count in (1, 4):
    state, _, _ = _stream(settings, count)
    leaves = jax.tree.leaves(state.memory)
    sizes.append(sum(x.nbytes for x in leaves))
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in leaves)
  heads, dim, layers = 2, 48, 2
  assert sizes[0] == sizes[1] == 2 * layers * heads * (dim + 1) * dim * 4 + 4


def test_8_bit_keys_are_refused():
  settings = _settings()
  memory = dataclasses.replace(settings.memory, key_dtype='e4m3')
  with pytest.raises(UserError, match='linear attention keeps no keys'):
    stream.new_memory(dataclasses.replace(settings, memory=memory), 1)


def test_training_rolls_out_and_replays_the_same_video():
  plain = _stream(_settings(), 4)[2]
  settings = _settings(spare=6, scan=True)
  params = _params(True)
  state = stream.init(settings, params, _text(), jax.random.key(0))
  table = rollout.table_of(EXTRA, 4)
  run = jax.jit(functools.partial(rollout.generate, settings))
  after, record = run(params, state, table, jnp.ones(4))
  np.testing.assert_allclose(rollout.join(record.clean), plain, atol=1e-5)
  ready = stream.encode_prompt(settings, params, _text())
  again = jax.jit(functools.partial(rollout.replay, settings))(
    params, ready, after.memory, record
  )
  np.testing.assert_allclose(again, plain, atol=2e-5)


def test_a_recache_is_writing_the_window_anew():
  settings = _settings(schedules.explicit([[1000.0, 500.0]]))
  params = _params(False)
  state, past, clip = _stream(settings, 3)  # 6 latents: all are held.
  text = stream.encode_prompt(settings, params, _text(1))
  again = jax.jit(functools.partial(switch.recache, settings))(
    params, state, past, text
  )
  oracle = stream.init(settings, params, _text(1), jax.random.key(0))
  oracle = stream.prefill(settings, params, oracle, clip)
  for a, b in zip(
    jax.tree.leaves(again.memory.past),
    jax.tree.leaves(oracle.memory.past),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-4)
  with pytest.raises(UserError, match='does not keep'):
    switch.switch(
      settings, params, state, past, text, switch.SwitchConfig('upstream')
    )


def test_long_tuning_of_a_linear_student(folder):  # noqa: F811
  """Traced: the state keeps its shapes."""
  config = make_config(folder, long=LongConfig(12), sink=2)
  config = dataclasses.replace(
    config,
    dit=dataclasses.replace(config.dit, linear=True),
    rollout=rollout.RolloutConfig(3, 3),
  )
  method = make_method(config)
  init = functools.partial(distillation.init, config)
  state = jax.eval_shape(lambda k: method.create(init(k)), jax.random.key(0))
  held = jax.eval_shape(lambda: distillation.frozen(config))
  ids, mask = np.zeros((2, 32), np.int32), np.ones((2, 32), bool)
  batch = {'ids': ids, 'mask': mask, 'next_ids': ids, 'next_mask': mask}
  after, _ = jax.eval_shape(
    method.update, state, held, batch, jax.random.key(1)
  )
  assert jax.tree.structure(after) == jax.tree.structure(state)


def test_what_linear_attention_cannot_do_is_said():
  with pytest.raises(UserError, match='memory of its own'):
    _settings(deferred=True)
