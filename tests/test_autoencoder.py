"""Training and measuring the autoencoders of the shapes world."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.models import tae, vae
from jaxvid.objectives import reconstruction
from jaxvid.storage import weights
from jaxvid.tasks import reconstruct, train
from jaxvid.training import autoencoder, checkpoint
from jaxvid.training.autoencoder import ClipConfig, TAETraining, VAETraining
from jaxvid.training.loop import LoopConfig

MODEL = vae.VAEConfig(dim=2, dim_mult=(1, 1, 2, 2), num_res_blocks=1)
# Two levels: its gradient compiles four times as fast.
SHALLOW = vae.VAEConfig(
  dim=2, dim_mult=(1, 2), num_res_blocks=1, temporal_downsample=(True,)
)
FAST = tae.TAEConfig(decoder_widths=(4, 4, 2, 2), encoder_width=0, blocks=1)
CLIPS = ClipConfig(height=16, width=16, lengths=(5,), batch_frames=10)


@pytest.fixture(scope='module')
def frozen(tmp_path_factory):
  """A tiny VAE as `train` exports it."""
  path = str(tmp_path_factory.mktemp('vae') / 'frozen')
  params = jax.jit(vae.init, static_argnums=0)(MODEL, jax.random.key(0))
  training = VAETraining(MODEL, CLIPS)
  head, params = autoencoder.exported_vae(training, params)
  weights.save(path, params, head)
  return path


def loss_and_gradient(task):
  params = jax.jit(task.init)(jax.random.key(1))
  batch = next(task.batches(0, None))
  run = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
  (loss, metrics), gradient = run(params, batch, jax.random.key(2))
  assert np.isfinite(loss) and np.isfinite(metrics['psnr'])
  return params, gradient


def moves(gradient):
  leaves = jax.tree.leaves_with_path(gradient)
  return {
    jax.tree_util.keystr(path): bool(np.any(leaf != 0)) for path, leaf in leaves
  }


def test_clips_resume_where_they_were():
  config = dataclasses.replace(CLIPS, lengths=(5, 1))
  clips = autoencoder.Clips(config, seed=3)
  shapes = [next(clips)['video'].shape for _ in range(2)]
  assert shapes == [(2, 5, 16, 16, 3), (10, 1, 16, 16, 3)]
  resumed = autoencoder.Clips(
    config, seed=3, state=json.loads(json.dumps(clips.get_state()))
  )
  first, second = next(clips)['video'], next(clips)['video']
  np.testing.assert_array_equal(first, next(resumed)['video'])
  np.testing.assert_array_equal(second, next(resumed)['video'])
  assert first.dtype == np.uint8 and first.std() > 0


def test_everything_learns_in_a_vae():
  _, gradient = loss_and_gradient(
    autoencoder.vae_task(VAETraining(SHALLOW, CLIPS))
  )
  still = [name for name, moving in moves(gradient).items() if not moving]
  assert not still


def test_frozen_encoder_stays(frozen):
  training = VAETraining(MODEL, CLIPS, frozen=frozen)
  params, gradient = loss_and_gradient(autoencoder.vae_task(training))
  assert set(params) == {'conv2', 'decoder'}
  assert all(moves(gradient).values())
  head, whole = autoencoder.exported_vae(training, params)
  before = checkpoint.load_params(frozen)
  assert head['vae']['latent_std'] == tuple(before[0]['vae']['latent_std'])
  jax.tree.map(
    np.testing.assert_array_equal, whole['encoder'], before[1]['encoder']
  )


def test_exported_latents_are_normalised(frozen):
  model, params = autoencoder.load_vae(frozen)
  assert model.latent_std != MODEL.latent_std
  clips = autoencoder.Clips(dataclasses.replace(CLIPS, batch_frames=160), 9)
  video = autoencoder.to_float(next(clips)['video'])
  latents, _ = jax.jit(vae.encode, static_argnums=0)(model, params, video)
  spread = np.asarray(latents).std((0, 1, 2, 3))
  np.testing.assert_allclose(spread, 1.0, atol=0.35)


def test_fast_decoder_learns(frozen):
  task = autoencoder.tae_task(TAETraining(FAST, frozen, CLIPS))
  params, gradient = loss_and_gradient(task)
  assert all(name.startswith('decoder_') for name in params)
  assert any(moves(gradient).values())


def test_train_and_measure(frozen, tmp_path, capsys):
  target = tmp_path / 'tae'
  config = train.Config(
    workdir=str(tmp_path / 'run'),
    export=str(target),
    loop=LoopConfig(steps=1, log_every=1),
    tae=TAETraining(FAST, frozen, CLIPS),
  )
  train.run(config)
  reconstruct.run(
    reconstruct.Config(
      vae=frozen,
      tae=str(target),
      clips=2,
      batch=2,
      frames=9,
      workers=0,
      output=str(tmp_path / 'report.json'),
      sheet=str(tmp_path / 'sheet.png'),
    )
  )
  report = json.loads((tmp_path / 'report.json').read_text())
  assert set(report['psnr']) == {'vae', 'tae'}
  assert set(report['probe']) == {'original', 'vae', 'tae'}
  for name, pooled in report['probe'].items():
    parts = report['probe_by_objects'][name].values()
    counts = [part['colour']['count'] for part in parts]
    assert sum(counts) == pooled['colour']['count']
    assert pooled['count']['low'] <= pooled['count']['value']
  assert (tmp_path / 'sheet.png').stat().st_size > 0
  assert 'PSNR' in capsys.readouterr().out


def test_load_vae_names_what_is_wrong(tmp_path):
  path = str(tmp_path / 'other')
  weights.save(path, {'a': jnp.ones(2)}, {'toy': 1})
  with pytest.raises(UserError, match='does not describe a vae'):
    autoencoder.load_vae(path)
  with pytest.raises(UserError, match='no weights'):
    autoencoder.load_vae(str(tmp_path / 'none'))


def test_psnr_of_a_known_error():
  target = jnp.zeros((2, 3, 4, 4, 3))
  video = jnp.stack([target[0] + 0.02, target[1] + 0.2])
  np.testing.assert_allclose(
    reconstruction.psnr(video, target), [40.0, 20.0], atol=1e-3
  )


def test_losses_of_a_known_error():
  target = jnp.zeros((1, 1, 4, 4, 1))
  stripes = target.at[..., ::2, :].set(1.0)
  assert float(reconstruction.absolute(stripes, target)) == 0.5
  assert float(reconstruction.squared(stripes, target)) == 0.5
  # A constant offset has no edges; stripes have them along one axis.
  assert float(reconstruction.edges(target + 1.0, target)) == 0.0
  assert float(reconstruction.edges(stripes, target)) == 1.0


def test_kl_of_a_normal_is_zero():
  zero = jnp.zeros((3, 2))
  assert float(reconstruction.kl_to_normal(zero, zero)) == 0.0
  assert float(reconstruction.kl_to_normal(zero + 1.0, zero)) == 0.5
