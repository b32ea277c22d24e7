"""The text-to-video training task, tiny."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.models import text as text_lib
from jaxvid.models import vae
from jaxvid.models.dit import DiTConfig
from jaxvid.models.text import TextConfig
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.storage import weights
from jaxvid.stream import stream
from jaxvid.training import diffusion, loop, optimizer, samples, shapes
from jaxvid.training.step import single

FRAMES = 4


def make_config(forcing='none', scan=False, **flow):
  return diffusion.DiffusionConfig(
    dit=DiTConfig(
      dim=24,
      ffn_dim=32,
      num_heads=2,
      num_layers=2,
      freq_dim=16,
      text_dim=8,
      text_len=6,
      in_dim=4,
      out_dim=4,
    ),
    text=TextConfig(
      vocab_size=shapes.VOCABULARY,
      dim=8,
      dim_attn=8,
      dim_ffn=16,
      num_heads=2,
      num_layers=2,
    ),
    tokenizer=shapes.TOKENIZER,
    data=diffusion.DataConfig('nowhere', batch=2, frames=FRAMES),
    flow=FlowConfig(forcing=forcing, chunk=2, **flow),
    scan=scan,
  )


def make_batch(size=2):
  rng = np.random.default_rng(0)
  return {
    'latents': rng.standard_normal((size, FRAMES, 4, 4, 4)).astype(np.float16),
    'ids': rng.integers(3, 90, (size, 6)).astype(np.int32),
    'mask': np.arange(6)[None] < np.array([[6], [1]] * (size // 2)),
    'weight': np.ones((size, FRAMES), np.float32),
  }


def make_params(config):
  """Random everywhere, so that nothing hides behind a zero."""
  return make_random(lambda: diffusion.init(config, jax.random.key(0)))


def make_random(init):
  """Parameters shaped as `init()` would make them, without compiling it."""
  leaves, tree = jax.tree.flatten(jax.eval_shape(init))
  rng = np.random.default_rng(1)
  return jax.tree.unflatten(
    tree,
    [0.3 * rng.standard_normal(x.shape).astype(np.float32) for x in leaves],
  )


@functools.partial(jax.jit, static_argnums=0)
def loss_of(config, params, batch):
  return diffusion.loss(config, params, batch, jax.random.key(2))[0]


def test_tokenizer_and_sizes_fit():
  tokenizer = Tokenizer.load(shapes.TOKENIZER)
  assert tokenizer.vocab_size == shapes.VOCABULARY
  assert tokenizer.settings.text_len == shapes.TEXT_LEN
  for dit, text in shapes.SIZES.values():
    diffusion.DiffusionConfig(dit, text, '', diffusion.DataConfig(''))


def test_small_has_under_two_million_parameters():
  dit, text = shapes.sizes('small')
  config = diffusion.DiffusionConfig(dit, text, '', diffusion.DataConfig(''))
  params = jax.eval_shape(lambda: diffusion.init(config, jax.random.key(0)))
  assert sum(leaf.size for leaf in jax.tree.leaves(params['dit'])) < 2e6


@pytest.mark.parametrize('forcing', ['none', 'diffusion', 'teacher'])
def test_every_leaf_moves(forcing):
  config = make_config(forcing)
  task = diffusion.diffusion_task(config)
  settings = loop.LoopConfig(
    steps=10,
    optimizer=optimizer.OptimizerConfig(warmup_steps=0, weight_decay=0.0),
  )
  method = single(task.loss, settings.optimizer, settings.steps)
  update, key = jax.jit(method.update), jax.random.key(1)
  before = jax.jit(task.init)(jax.random.key(0))
  after = method.create(before)
  for i in range(3):  # the first moves only what follows the zero head
    now = jax.random.fold_in(key, i)
    after, _ = update(after, None, make_batch(), now)
  still = [
    jax.tree_util.keystr(path)
    for (path, old), new in zip(
      jax.tree.leaves_with_path(before),
      jax.tree.leaves(after.params),
      strict=True,
    )
    if np.array_equal(old, new)
  ]
  # Adding the same to every key of a head changes no softmax.
  still = [name for name in still if "['k']['bias']" not in name]
  assert not still


def test_scanned_and_unrolled_layers_agree():
  plain, scanned = make_config('teacher'), make_config('teacher', scan=True)
  params = make_params(plain)
  stacked = diffusion.imported(scanned, params)
  losses = [
    loss_of(config, p, make_batch())
    for config, p in ((plain, params), (scanned, stacked))
  ]
  np.testing.assert_allclose(*losses, rtol=1e-5)
  jax.tree.map(
    np.testing.assert_array_equal, diffusion.exported(stacked), params
  )


def test_one_chunk_of_diffusion_forcing_is_the_teacher():
  params = make_params(make_config())
  causal = make_config('diffusion')
  causal = dataclasses.replace(
    causal, flow=dataclasses.replace(causal.flow, chunk=FRAMES)
  )
  a = loss_of(make_config(), params, make_batch())
  b = loss_of(causal, params, make_batch())
  np.testing.assert_allclose(a, b, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def velocity_of(config, params, x, t):
  dit, _ = diffusion._models(config)
  text = jnp.ones((x.shape[0], 6, 8))
  plan = diffusion.training_plan(config, FRAMES, 2, 2)
  return dit.apply({'params': params['dit']}, x, t, text, None, plan)[0]


def test_diffusion_forcing_does_not_see_the_future():
  config = make_config('diffusion')
  params = make_params(config)
  x = jax.random.normal(jax.random.key(0), (1, FRAMES, 4, 4, 4))
  t = jnp.full((1, FRAMES), 300.0)
  whole = velocity_of(config, params, x, t)
  changed = velocity_of(config, params, x.at[:, 2:].set(9.0), t)
  np.testing.assert_allclose(whole[:, :2], changed[:, :2], atol=1e-5)
  assert np.abs(whole[:, 2:] - changed[:, 2:]).max() > 1e-2


def test_teacher_forcing_equals_one_chunk_after_the_other():
  """The parallel pass gives what a chunk alone with its clean past would."""
  config = make_config('teacher')
  params = make_params(config)
  clean, noisy = jax.random.normal(jax.random.key(0), (2, 1, FRAMES, 4, 4, 4))
  t = jnp.array([[0.0] * FRAMES + [800.0] * FRAMES])
  both = jnp.concatenate([clean, noisy], 1)
  parallel = velocity_of(config, params, both, t)[:, FRAMES:]
  # Chunk 1 with its past, by diffusion forcing: context clean at t = 0.
  mixed = jnp.concatenate([clean[:, :2], noisy[:, 2:]], 1)
  levels = jnp.array([[0.0, 0.0, 800.0, 800.0]])
  one = velocity_of(make_config('diffusion'), params, mixed, levels)
  np.testing.assert_allclose(parallel[:, 2:], one[:, 2:], atol=1e-4)
  # Chunk 0 has no past at all.
  first = velocity_of(
    make_config('diffusion'), params, noisy, jnp.full((1, FRAMES), 800.0)
  )
  np.testing.assert_allclose(parallel[:, :2], first[:, :2], atol=1e-4)


def test_padding_of_the_prompt_is_never_read():
  config = make_config()
  params, batch = make_params(config), make_batch()
  other = dict(batch, ids=np.where(batch['mask'], batch['ids'], 7))
  losses = [loss_of(config, params, b) for b in (batch, other)]
  np.testing.assert_array_equal(*losses)


def test_another_vocabulary_is_refused():
  config = make_config()
  text = dataclasses.replace(config.text, vocab_size=7)
  with pytest.raises(UserError, match='vocab_size'):
    diffusion.diffusion_task(dataclasses.replace(config, text=text))


CODEC = vae.VAEConfig(
  dim=2,
  z_dim=4,
  dim_mult=(1, 1, 2, 2),
  num_res_blocks=1,
  latent_mean=(0.0,) * 4,
  latent_std=(1.0,) * 4,
)


@pytest.fixture(scope='module')
def codec(tmp_path_factory):
  """A tiny VAE of random weights."""
  folder = str(tmp_path_factory.mktemp('vae') / 'vae')
  params = make_random(lambda: vae.init(CODEC, jax.random.key(0)))
  weights.save(folder, params, {'vae': dataclasses.asdict(CODEC)})
  return folder


def sampling(config, codec, **settings):
  captions = ('a red circle moves left', 'a small blue square')
  sample = samples.SampleConfig(codec, captions, (4, 4), 2, **settings)
  return dataclasses.replace(config, sample=sample)


@pytest.mark.parametrize(
  ('forcing', 'scan'), [('none', False), ('teacher', True)]
)
def test_sample_videos(codec, forcing, scan):
  """One video per caption, decided by weights and key alone."""
  config = sampling(make_config(forcing, scan), codec, window=4, sink=2)
  params = diffusion.imported(config, make_params(make_config()))
  sample = diffusion.diffusion_task(config).sample
  videos = sample(params, jax.random.key(0))
  assert set(videos) == set(config.sample.captions)
  for video in videos.values():
    assert video.shape == (1, 4 * FRAMES - 3, 32, 32, 3)
    assert video.dtype == np.uint8 and video.std() > 1
  one, two = videos.values()
  assert not np.array_equal(one, two)
  again, other = (sample(params, jax.random.key(i)) for i in range(2))
  for caption, video in videos.items():
    np.testing.assert_array_equal(video, again[caption])
    assert not np.array_equal(video, other[caption])


def test_samples_of_a_causal_model_are_its_stream(codec):
  config = sampling(make_config('teacher'), codec, window=4, sink=2)
  params = make_params(config)
  settings = samples.stream_settings(
    config.sample,
    config.dit,
    2,
    bidirectional=False,
    scan=False,
    dtype='float32',
  )
  ids, mask = Tokenizer.load(shapes.TOKENIZER, 6)(['a red circle', ''])
  key = jax.random.key(3)
  got = samples.latents(settings, config.text, 2, ids, mask, params, key)
  text = text_lib.encode(config.text, params['text'], ids, mask)
  state = stream.init(settings, params['dit'], text[:1], key, text[1:])
  step, pieces = stream.jitted_step(settings), []
  for i in range(2):
    ticks = stream.chunk_ticks(settings.schedule, i)
    state, piece = step(params['dit'], state, ticks)
    pieces.append(piece)
  np.testing.assert_allclose(got, np.concatenate(pieces, 1), atol=1e-4)


def test_samples_that_cannot_be_made_are_refused_before_training(codec):
  config = make_config()
  assert diffusion.diffusion_task(config).sample is None
  wide = dataclasses.replace(config.dit, in_dim=16, out_dim=16)
  for bad, message in (
    (sampling(config, 'nowhere'), 'no weights at'),
    (sampling(dataclasses.replace(config, dit=wide), codec), 'of 4 channels'),
    (sampling(make_config('teacher'), codec, window=1), 'smaller than chunk'),
  ):
    with pytest.raises(UserError, match=message):
      diffusion.diffusion_task(bad)
  with pytest.raises(UserError, match='no multiple of the patch'):
    odd = dataclasses.replace(sampling(config, codec).sample, size=(3, 4))
    diffusion.diffusion_task(dataclasses.replace(config, sample=odd))
