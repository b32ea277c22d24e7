"""AAPT: rollouts, discriminators and stages against stateless twins."""

import dataclasses
import functools

import aapt_case
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.models import conditioning
from jaxvid.models.conditioning import InputConfig
from jaxvid.objectives import gan
from jaxvid.stream import stream
from jaxvid.training import (
  aapt,
  aapt_adversarial,
  aapt_config,
  aapt_judge,
  aapt_rollout,
)
from jaxvid.training.aapt_adversarial import AdversarialConfig
from jaxvid.training.aapt_judge import JudgeConfig
from jaxvid.training.loop import LoopConfig
from jaxvid.training.optimizer import OptimizerConfig

MADE = aapt_case.FRAMES - 1
RMSPROP = OptimizerConfig(kind='rmsprop', learning_rate=1e-3, beta2=0.9)


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  return aapt_case.write(tmp_path_factory.mktemp('aapt'))


def adversarial(places, chunk=1, **changes) -> AdversarialConfig:
  parts = {
    **aapt_case.parts(places['generator'], chunk),
    'judge': JudgeConfig(places['adapted'], (0, 1)),
    'judge_optimizer': RMSPROP,
  }
  return AdversarialConfig(**(parts | changes))


def inputs(config):
  """Generator's parameters, encoded prompts, a video."""
  params = aapt_config.load(config)
  text = jax.random.normal(jax.random.key(1), (2, 6, 8))
  video = jnp.asarray(aapt_case.batch()['latents'], jnp.float32)
  return params, text, video


def teacher_forced(config, params, text, state, first, clip):
  """All ticks of a video in one causal pass."""
  settings = config.settings(4, 4)
  noise = aapt_rollout.noise_of(settings, state, clip.shape[1])
  velocity = aapt_config.field(config, params, text, first, clip)
  return noise - velocity(noise, jnp.full(clip.shape[:2], 1000.0))


@pytest.mark.parametrize(
  ('chunk', 'recycled'), [(1, 'last'), (2, 'first')], ids=['last', 'first']
)
def test_a_rollout_is_one_parallel_pass_over_what_it_made(
  places, chunk, recycled
):
  """Past the window too: frames 3 and 4 no longer see frame 2's keys."""
  config = adversarial(places, chunk, inputs=InputConfig(recycled))
  params, text, video = inputs(config)
  settings, first = config.settings(4, 4), video[:, :1]

  @jax.jit
  def run(params):
    key = jax.random.key(2)
    state = aapt_rollout.begin(settings, params, text, first, key)
    _, clip = aapt_rollout.generate(settings, params, state, MADE)
    half, _ = aapt_rollout.generate(settings, params, state, 2)
    ready = stream.encode_prompt(settings, params, text)
    replay = functools.partial(aapt_rollout.replay, settings, params, ready)
    return (
      clip,
      teacher_forced(config, params, text, state, first, clip),
      replay(state, clip),
      replay(half, clip[:, 2:]),
    )

  clip, parallel, replayed, later = run(params)
  assert clip.shape == (2, MADE, 4, 4, 4)
  np.testing.assert_allclose(parallel, clip, atol=1e-5)
  np.testing.assert_allclose(replayed, clip, atol=1e-5)
  np.testing.assert_allclose(later, clip[:, 2:], atol=1e-5)


def test_a_rollout_carries_gradient_through_its_own_keys_only(places):
  """That of a plain loop in which recycled frames are constants."""
  config = adversarial(places)
  params, text, video = inputs(config)
  settings, first = config.settings(4, 4), video[:, :1]
  target = jax.random.normal(jax.random.key(3), (2, 2, 4, 4, 4))
  ticks = stream.chunk_ticks(settings.schedule, 0)

  def start(params):
    key = jax.random.key(2)
    return aapt_rollout.begin(settings, params, text, first, key)

  def plain(params):
    state = start(params)
    state = state.replace(text=stream.encode_prompt(settings, params, text))
    clip = []
    for _ in range(2):
      state, x = stream.step(settings, params, state, ticks)
      clip.append(x)
      state = state.replace(inputs=jax.lax.stop_gradient(state.inputs))
    return jnp.sum(jnp.concatenate(clip, 1) * target)

  def replayed(params):
    state = start(params)
    _, clip = aapt_rollout.generate(settings, params, state, 2)
    ready = stream.encode_prompt(settings, params, text)
    clip = aapt_rollout.replay(settings, params, ready, state, clip)
    return jnp.sum(clip * target)

  def whole(params):
    ready = stream.encode_prompt(settings, params, text)
    run = aapt_rollout.through_all
    return jnp.sum(run(settings, params, ready, start(params), 2) * target)

  expected, actual, more = jax.jit(
    lambda params: tuple(jax.grad(f)(params) for f in (plain, replayed, whole))
  )(params)
  leaves = functools.partial(map, jax.tree.leaves)
  for a, b in zip(*leaves((actual, expected)), strict=True):
    scale = max(1.0, float(jnp.abs(b).max()))
    np.testing.assert_allclose(a, b, atol=1e-5 * scale)
  name = 'patch_embedding'
  assert jnp.abs(more[name]['kernel'] - actual[name]['kernel']).max() > 1e-3


def judge_case(places, **changes):
  """Config, `(video, t) -> logits`, the same with a real past, a video."""
  config = adversarial(places)
  judge = dataclasses.replace(config.judge, **changes)
  config = dataclasses.replace(config, judge=judge)
  _, text, video = inputs(config)
  params = aapt_adversarial.load(config)['judge']

  def judged(video, t):
    return aapt_judge.logits(config, judge, params, text)(video, t)

  def forced(real, video, t):
    run = aapt_judge.forced_logits(config, judge, params, text, real)
    return run(video, t)

  return jax.jit(judged), jax.jit(forced), video


def test_all_durations_are_judged_as_each_by_itself(places):
  judged, _, video = judge_case(places)
  t = jnp.array([300.0, 700.0])
  logits = judged(video, t)
  assert logits.shape == (2, MADE)
  for count in (1, MADE - 1):
    shorter = judged(video[:, : 1 + count], t)
    np.testing.assert_allclose(logits[:, :count], shorter, atol=1e-5)


def test_with_teacher_forcing_every_frame_has_a_real_past(places):
  judged, forced, real = judge_case(places)
  t = jnp.array([300.0, 700.0])
  fake = jax.random.normal(jax.random.key(5), real.shape)
  logits = forced(real, fake, t)
  # Of a video whose last frame alone is not real.
  mixed = real.at[:, MADE].set(fake[:, MADE])
  expected = judged(mixed, t)[:, -1]
  np.testing.assert_allclose(logits[:, -1], expected, atol=1e-5)
  mixed = real.at[:, 2].set(fake[:, 2])
  expected = judged(mixed, t)[:, 1]
  np.testing.assert_allclose(logits[:, 1], expected, atol=1e-5)
  own = judged(real, t)
  np.testing.assert_allclose(forced(real, real, t), own, atol=1e-5)


def test_a_clip_may_get_one_score_that_sees_all_of_it(places):
  judged, _, video = judge_case(places, scores='clip')
  assert jax.eval_shape(judged, video, jnp.ones(2)).shape == (2, 1)


def one_step(config):
  """The training task's update and what it takes."""
  settings = LoopConfig(steps=2, optimizer=RMSPROP)
  task = aapt_adversarial.adversarial_task(config)
  method = task.method(settings)
  params = task.load()
  args = task.frozen(), aapt_case.batch(), jax.random.key(0)
  return method.update, jax.jit(method.create)(params), args


def test_an_adversarial_step_moves_both_networks(places):
  config = adversarial(places)
  update, before, args = one_step(config)
  after, metrics = jax.jit(update)(before, *args)
  assert all(jnp.isfinite(value) for value in jax.tree.leaves(metrics))
  assert {'gan_r1', 'gan_r2', 'dit_norm', 'judge_norm'} <= set(metrics)
  for name in ('dit', 'judge'):
    pairs = zip(
      *map(jax.tree.leaves, (after.params[name], before.params[name])),
      strict=True,
    )
    assert any((a != b).any() for a, b in pairs)


@pytest.mark.parametrize(
  'changes',
  [
    {'forcing': 'teacher'},
    {'gradient': 'all', 'extensions': 1, 'overlap': 2},
  ],
  ids=['teacher', 'all'],
)
def test_other_ways_to_train_fit_the_same_state(places, changes):
  update, state, args = one_step(adversarial(places, **changes))
  after, metrics = jax.eval_shape(update, state, *args)
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert 'gan_r1' in metrics


def test_segments_come_one_after_the_other(places):
  """One program for all further segments: memory is that of one."""
  config = adversarial(places, extensions=5, overlap=2)
  frozen = aapt_config.text_encoder(config)
  params = jax.eval_shape(
    functools.partial(aapt_adversarial.init, config), jax.random.key(0)
  )
  run = functools.partial(aapt_adversarial.gradients, config, frozen)
  args = params, aapt_case.batch(), jax.random.key(1)
  equations = jax.make_jaxpr(run)(*args).eqns
  loops = [e.params for e in equations if e.primitive.name == 'scan']
  assert 5 in [loop['length'] for loop in loops]
  # Losses and gradients: sums, not one of each segment.
  (value, _), grads = jax.eval_shape(run, *args)
  assert value.shape == ()
  assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


def test_a_clip_is_shown_its_own_past_one_frame_late(places):
  video = jnp.asarray(aapt_case.batch()['latents'], jnp.float32)
  first, clip = video[:, :1], video[:, 1:]
  config = adversarial(places)
  shown = aapt_config.clip_inputs(config, first, clip).recycled
  np.testing.assert_array_equal(shown, video[:, :-1])
  masked = adversarial(places, inputs=InputConfig('first'))
  shown = aapt_config.clip_inputs(masked, first, clip).recycled
  np.testing.assert_array_equal(shown[:, 0], video[:, 0])
  assert not shown[:, 1:].any()
  pairs = adversarial(places, 2)
  shown = aapt_config.clip_inputs(pairs, first, clip).recycled
  np.testing.assert_array_equal(shown, video[:, [0, 0, 2, 2]])


@pytest.mark.parametrize(
  ('kind', 'loss'),
  [
    (aapt.AdaptConfig, aapt.adapt_loss),
    (aapt.AAPTConsistency, aapt.consistency_loss),
  ],
)
def test_stages_before_have_a_loss_of_the_generator(places, kind, loss):
  config = kind(**aapt_case.parts(places['adapted']))
  params = aapt_config.load(config)
  frozen = {**aapt_config.text_encoder(config), 'teacher': params}
  value, metrics = jax.eval_shape(
    functools.partial(loss, config),
    frozen,
    {'dit': params},
    aapt_case.batch(),
    jax.random.key(3),
  )
  assert value.shape == () and metrics


def test_adaptation_widens_a_text_to_video_model(places):
  parts = aapt_case.parts(places['plain'])
  wide = aapt_config.load_widened(aapt.AdaptConfig(**parts))
  kernel = wide['patch_embedding']['kernel']
  plain = aapt_case.random('dit', aapt_case.PLAIN, 0)['patch_embedding']
  np.testing.assert_array_equal(kernel[..., :4, :], plain['kernel'])
  assert 0.5 < jnp.std(kernel[..., 4:, :]) / jnp.std(plain['kernel']) < 2


def test_other_stages_refuse_a_model_that_recycles_nothing(places):
  config = adversarial(places, weights=places['plain'])
  with pytest.raises(UserError, match='no channels for a recycled frame'):
    aapt_adversarial.load(config)
  with pytest.raises(UserError, match='no channels for a recycled frame'):
    adversarial(places, dit=aapt_case.PLAIN)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'overlap': 0}, 'overlap=0'),
    ({'extensions': 1, 'overlap': 4}, 'overlap 4'),
    ({'chunk': 3, 'window': 3}, 'multiple of chunk=3'),
    ({'extensions': 1, 'forcing': 'teacher'}, 'student forcing'),
    ({'stages': ()}, 'stages'),
  ],
)
def test_impossible_settings_are_refused(places, changes, message):
  with pytest.raises(UserError, match=message):
    adversarial(places, **changes)


def test_penalties_and_pairing_are_those_of_the_paper():
  """Equations 1 to 3, sum by sum."""

  def logits(x, t):
    return x.reshape(2, 3, -1).mean(-1) * (1 + t[:, None] / 1000)

  keys = jax.random.split(jax.random.key(0), 3)
  fake, real = (jax.random.normal(k, (2, 3, 2, 2, 1)) for k in keys[:2])
  config = gan.AAPT
  loss, metrics = gan.discriminator_loss(logits, fake, real, keys[2], config)
  t_key, _, r1_key, r2_key = jax.random.split(keys[2], 4)
  t = gan.sample_times(t_key, config, 2)
  gap = np.asarray(logits(fake, t) - logits(real, t))
  expected = np.mean(np.log1p(np.exp(gap)))
  for x, key, name in ((real, r1_key, 'gan_r1'), (fake, r2_key, 'gan_r2')):
    noisy = x + 0.1 * jax.random.normal(key, x.shape)
    change = np.asarray(logits(x, t) - logits(noisy, t))
    np.testing.assert_allclose(metrics[name], np.mean(change**2), rtol=1e-4)
    expected += 1000 * np.mean(change**2)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_a_stream_starts_from_a_frame_or_a_video(places):
  config = adversarial(places)
  params, text, video = inputs(config)
  settings = config.settings(4, 4)
  state = stream.init(settings, params, text, jax.random.key(2))
  assert not state.inputs.recycled.any()
  begun = stream.prefill(settings, params, state, video[:, :1])
  np.testing.assert_array_equal(begun.inputs.recycled, video[:, :1])
  assert begun.memory.frame == 0
  state = stream.init(settings, params, text, jax.random.key(2))
  state = stream.prefill(settings, params, state, video[:, :3])
  np.testing.assert_array_equal(state.inputs.recycled, video[:, 2:3])
  assert state.memory.frame == 2
  # As in training: the keys and values of ticks that were shown real frames.
  state, x = stream.jitted_step(settings)(
    params, state, stream.chunk_ticks(settings.schedule, 2)
  )
  first = stream.init(settings, params, text, jax.random.key(2))
  clip = video[:, 1:4]
  expected = teacher_forced(config, params, text, first, video[:, :1], clip)
  np.testing.assert_allclose(x, expected[:, 2:3], atol=1e-5)
  np.testing.assert_array_equal(state.inputs.recycled, x)


def test_channels_have_places_of_their_own():
  config = InputConfig('last', image=True, control=3)
  assert config.channels(4) == 4 + 4 + 4 + 3
  x = jnp.ones((1, 2, 2, 2, 4))
  begun = conditioning.start(config, x.shape, 2 * x[:, :1])
  joined = conditioning.join(config, x, begun)
  assert joined.shape[-1] == 15
  np.testing.assert_array_equal(
    joined[0, 1, 0, 0], [1] * 4 + [2] * 4 + [2] * 4 + [0] * 3
  )
  later = conditioning.advance(config, begun, 3 * x)
  np.testing.assert_array_equal(later.recycled, 3 * x[:, :1])
  np.testing.assert_array_equal(later.image, 2 * x[:, :1])
  plain = InputConfig()
  assert conditioning.join(plain, x, None) is x
  with pytest.raises(ValueError, match='no inputs'):
    conditioning.join(config, x, None)
