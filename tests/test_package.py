"""The installed package works anywhere: configs and weights travel with it."""

import os
import pathlib
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel as pip builds it, without a network."""
  pytest.importorskip('hatchling')
  out = tmp_path_factory.mktemp('wheel')
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  options = ['--no-deps', '--no-build-isolation', '--no-index', '--quiet']
  subprocess.run(
    [*pip, 'wheel', str(ROOT), *options, '--wheel-dir', str(out)],
    check=True,
    capture_output=True,
  )
  return next(out.glob('*.whl'))


def files_under(folder: pathlib.Path) -> set[str]:
  """Relative paths of what git keeps below a folder."""
  listed = subprocess.run(
    ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '.'],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  if listed.returncode:
    pytest.skip('not a git checkout')
  return {line for line in listed.stdout.splitlines() if line}


def test_wheel_holds_code_weights_and_configs(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  wanted = {f'jaxvid/{name}' for name in files_under(ROOT / 'jaxvid')}
  wanted |= {f'jaxvid/_configs/{n}' for n in files_under(ROOT / 'configs')}
  assert wanted <= names
  assert any(name.endswith('licenses/LICENSE') for name in names)
  assert not any(name.startswith('tests') for name in names)
  assert not any(name.endswith('.pyc') for name in names)


def test_installed_package_runs_elsewhere(wheel, tmp_path):
  site = tmp_path / 'site'
  zipfile.ZipFile(wheel).extractall(site)
  away = tmp_path / 'away'
  away.mkdir()

  def call(*argv):
    return subprocess.run(
      [sys.executable, *argv],
      cwd=away,
      env={**os.environ, 'PYTHONPATH': str(site)},
      capture_output=True,
      text=True,
      check=True,
    ).stdout

  found = call('-c', 'import jaxvid; print(jaxvid.__file__)')
  assert found.startswith(str(site))
  configs = [n for n in files_under(ROOT / 'configs') if n.endswith('.py')]
  listing = call('-m', 'jaxvid.main', '--help')
  for name in configs:
    assert f'configs/{name}' in listing
  shown = call('-m', 'jaxvid.main', f'--config=configs/{configs[0]}', '--help')
  assert 'keys:' in shown


def test_version_and_constraints_agree():
  from jaxvid import __version__

  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert project['version'] == __version__
  assert f'version: {__version__}' in (ROOT / 'CITATION.cff').read_text()
  pinned = {
    line.split('==')[0].lower().replace('_', '-')
    for line in (ROOT / 'constraints.txt').read_text().splitlines()
    if '==' in line
  }
  extras = project['optional-dependencies']['dev']
  for requirement in project['dependencies'] + extras:
    name = requirement.split('>')[0].lower().replace('_', '-')
    assert name in pinned, f'{name} is not in constraints.txt'


def test_find_python():
  """The finder runs candidates and prints one that is good enough."""
  script = ['sh', str(ROOT / 'launch' / 'find_python.sh')]
  env = {'PATH': '/usr/bin:/bin', 'PYTHON': sys.executable, 'HOME': '/nowhere'}
  done = subprocess.run(script, env=env, capture_output=True, text=True)
  assert done.stdout.strip() == sys.executable


def test_find_python_says_what_is_missing(tmp_path):
  script = ['/bin/sh', str(ROOT / 'launch' / 'find_python.sh')]
  fake = tmp_path / 'python3.12'
  fake.write_text('#!/bin/sh\nexit 1\n')
  fake.chmod(0o755)
  env = {'PATH': str(tmp_path), 'HOME': str(tmp_path)}
  done = subprocess.run(script, env=env, capture_output=True, text=True)
  assert done.returncode == 1
  assert len(done.stderr.splitlines()) == 1
  assert 'no Python >= 3.12 found' in done.stderr
