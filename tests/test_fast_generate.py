"""Options of `generate` for speed: the same video."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_bundle

from jaxvid.tasks import generate, player

BASE = {
  'prompt': 'a big red circle',
  'decoder': 'tae',
  'seconds': 1.5,
  'schedule': '1000,500',
  'commit': 'clean',
  'sink': 1,
  'window': 4,
  'chunk': 2,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return str(tiny_bundle.write(tmp_path_factory.mktemp('weights')))


def _video(folder, output, **options):
  config = generate.Config(
    **BASE, weights=folder, output=str(output / 'x.mp4'), **options
  )
  playback = player.prepare(config, generate.check(config))
  return np.concatenate(list(playback.frames), 1)


def test_fast_options_make_the_same_video(folder, tmp_path):
  plain = _video(folder, tmp_path)
  # Other tests may have left theirs beside.
  before = set(tmp_path.parent.rglob('*.stablehlo'))
  fast = _video(folder, tmp_path, fast=True, deferred=True, exported=True)
  assert plain.dtype == np.uint8 and plain.std() > 1
  difference = np.abs(plain.astype(int) - fast.astype(int))
  assert difference.max() <= 1
  programs = set(tmp_path.parent.rglob('*.stablehlo')) - before
  assert len(programs) == 2  # The first chunk, and all others.


def test_programs_are_kept_unless_told_otherwise(tmp_path):
  """In a process of its own: jax reads its variables when it is imported."""
  code = """
import os, sys
for name in [n for n in os.environ if n.startswith('JAX_')]:
  del os.environ[name]
from jaxvid import main
main.keep_programs()
import jax
print(jax.config.jax_compilation_cache_dir)
"""
  for value, expected in ((str(tmp_path), str(tmp_path)), ('off', 'None')):
    done = subprocess.run(
      [sys.executable, '-c', code],
      env={**os.environ, 'JAXVID_CACHE': value, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.strip() == expected


def test_parts_land_on_the_device_that_was_asked_for(folder):
  other = jax.devices('cpu')[-1]
  config = generate.Config(**BASE, weights=folder)
  with jax.default_device(other):
    placed = player.open_model(config).place('text', 'float32')
  assert all(x.devices() == {other} for x in jax.tree.leaves(placed))
