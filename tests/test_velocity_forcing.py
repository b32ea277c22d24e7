"""Velocity forcing and noise of chunks, against the paper's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.diffusion import chunk_noise
from jaxvid.diffusion.chunk_noise import ProgressiveNoise, StartNoise
from jaxvid.errors import UserError
from jaxvid.objectives import flow_matching, velocity_forcing
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.objectives.velocity_forcing import VelocityForcingConfig

SCENES = (0, 1, 0, 2, 1)


def _prompts(scenes=SCENES, batch=2):
  table = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
  return jnp.broadcast_to(
    jnp.asarray(table[list(scenes)]), (batch, len(scenes), 6)
  )


def _clip(frames, seed=0, batch=2):
  return jax.random.normal(jax.random.key(seed), (batch, frames, 2, 2, 3))


@pytest.mark.parametrize('retrieved', [1, 2, 9])
def test_references_are_means_of_the_most_alike_past_chunks(retrieved):
  x0, prompts = np.asarray(_clip(15)), np.asarray(_prompts())
  out = velocity_forcing.semantic_reference(x0, prompts, 3, retrieved)
  chunks = x0.reshape(2, 5, 3, 2, 2, 3)
  for i in range(5):
    e = prompts[0]
    cos = [
      e[i] @ e[j] / np.linalg.norm(e[i]) / np.linalg.norm(e[j])
      for j in range(i)
    ]
    order = sorted(range(i), key=lambda j: (round(float(cos[j]), 4), j))
    chosen = order[-retrieved:] or [0]
    expected = chunks[:, chosen].mean(1)
    np.testing.assert_allclose(out[:, 3 * i : 3 * i + 3], expected, atol=1e-5)


def test_a_shorter_chunk_is_met_at_its_own_length():
  x0 = jnp.broadcast_to(
    jnp.arange(8.0)[None, :, None, None, None], (1, 8, 2, 2, 3)
  )
  prompts = _prompts((0, 0, 0), 1)
  out = velocity_forcing.semantic_reference(x0, prompts, 3, 1)
  np.testing.assert_allclose(out[0, 3:6, 0, 0, 0], [0, 1, 2], atol=1e-6)
  # Three frames 3, 4, 5 as two: their ends, drawn to the middle.
  last = out[0, 6:, 0, 0, 0]
  assert 3 <= last[0] < 4 < last[1] <= 5
  np.testing.assert_allclose(last.mean(), 4, atol=1e-5)


def test_targets():
  x0, reference, noise = (_clip(6, seed) for seed in range(3))
  literal = VelocityForcingConfig('literal', 0.25)
  out = velocity_forcing.target(x0, reference, noise, literal)
  np.testing.assert_allclose(out, noise - 0.25 * reference, atol=1e-6)
  out = velocity_forcing.target(
    x0, reference, noise, VelocityForcingConfig(gamma=0.25)
  )
  expected = noise - (0.75 * x0 + 0.25 * reference)
  np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize('forcing', ['teacher', 'diffusion'])
def test_without_pull_it_is_flow_matching(forcing):
  flow = FlowConfig(forcing, 3, context_t=50.0)
  x0, key = _clip(15), jax.random.key(3)

  def velocity(x, t):
    return jnp.sin(x) * t[..., None, None, None] / 1000

  config = VelocityForcingConfig(gamma=0.0)
  value, _ = velocity_forcing.loss(velocity, x0, _prompts(), key, flow, config)
  t_key, noise_key, context_key, _ = jax.random.split(key, 4)
  errors = flow_matching.clip_errors(
    velocity,
    x0,
    jax.random.normal(noise_key, x0.shape),
    flow_matching.sample_times(t_key, flow, 2, 15),
    flow,
    None,
    jax.random.normal(context_key, x0.shape),
  )
  np.testing.assert_allclose(value, errors.mean(), rtol=1e-6)


def test_curves_of_noise():
  def levels(curve, n=5):
    return chunk_noise.curve_levels(ProgressiveNoise(curve, 0.2, 0.9), n)

  c = np.arange(5)
  cosine = 0.2 + 0.5 * 0.7 * (1 - np.cos(np.pi * c / 4))
  np.testing.assert_allclose(levels('cosine'), cosine)
  np.testing.assert_allclose(levels('linear'), 0.2 + 0.7 * c / 4)
  sigmoid = 0.2 + 0.7 / (1 + np.exp(-10 * (c / 4 - 0.5)))
  np.testing.assert_allclose(levels('sigmoid'), sigmoid)
  np.testing.assert_allclose(levels('naive'), [0.9] * 5)
  np.testing.assert_allclose(levels('cosine', 1), [0.9])


def test_noise_rises_within_the_clips_that_are_chosen():
  config = ProgressiveNoise('linear', 0.25, 1.0, share=0.5)
  drawn = jnp.repeat(
    jax.random.uniform(jax.random.key(0), (200, 4), maxval=1000.0), 3, 1
  )
  t = chunk_noise.progressive(config, drawn, jax.random.key(1), 3)
  rising = drawn[:, -1:] * np.repeat([0.25, 0.5, 0.75, 1.0], 3)
  chosen = np.isclose(t, rising).all(1)
  kept = np.isclose(t, drawn).all(1)
  assert np.all(chosen ^ kept)
  assert 0.35 < chosen.mean() < 0.65


def _noise(config, chunk, frames=6, seed=0):
  key = jax.random.key(seed)
  own = jax.random.split(jax.random.fold_in(key, chunk))
  shape = (1, frames, 1, 1, 1)
  out = chunk_noise.start_noise(
    config, key, jnp.int32(chunk), (own[0], own[1]), shape
  )
  return np.asarray(out).reshape(-1)


def test_shuffles_stay_at_the_boundaries():
  base = _noise(StartNoise(0, shared=True), 0)
  np.testing.assert_array_equal(base, _noise(StartNoise(0, True), 7))
  assert not np.array_equal(_noise(StartNoise(), 0), _noise(StartNoise(), 1))
  moved = [_noise(StartNoise(2, True), i) for i in range(20)]
  for i, noise in enumerate(moved):
    np.testing.assert_array_equal(noise[2:4], base[2:4])
    assert set(noise[:2]) == set(base[:2]) and set(noise[4:]) == set(base[4:])
    if i == 0:  # No boundary before the first chunk.
      np.testing.assert_array_equal(noise[:2], base[:2])
  assert len({tuple(noise) for noise in moved}) > 2


def test_a_shuffle_is_never_wider_than_a_chunk():
  base = _noise(StartNoise(0, True), 0, frames=3)
  wide = _noise(StartNoise(4, True), 1, frames=3)
  assert set(wide) == set(base)


@pytest.mark.parametrize(
  'make, options, message',
  [
    (VelocityForcingConfig, {'gamma': 1.5}, 'gamma'),
    (VelocityForcingConfig, {'form': 'loose'}, "'loose'"),
    (VelocityForcingConfig, {'retrieved': 0}, 'retrieved'),
    (ProgressiveNoise, {'curve': 'square'}, "'square'"),
    (ProgressiveNoise, {'low': 0.0}, 'noise levels'),
    (ProgressiveNoise, {'low': 0.5, 'high': 0.4}, 'noise levels'),
    (ProgressiveNoise, {'alpha': 0.0}, 'alpha'),
    (ProgressiveNoise, {'share': 2.0}, 'share'),
    (StartNoise, {'shuffle': -1}, 'shuffle'),
  ],
)
def test_impossible_settings_are_refused(make, options, message):
  with pytest.raises(UserError, match=message):
    make(**options)
