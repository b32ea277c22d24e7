#!/bin/sh
# Prints a Python >= 3.12 that can make virtual environments.
#
# Candidates are run, not trusted by name: a pyenv shim may exist for a version
# that is not there, and Debian ships a python3 without its venv module.
# $PYTHON is tried first. One line on stderr says what is missing.

probe='import sys; assert sys.version_info >= (3, 12), "old"
import ensurepip, venv'

candidates() {
  for name in "$PYTHON" python3.12 python3.13 python3; do
    [ -n "$name" ] && command -v "$name"
  done
  pyenv_root=${PYENV_ROOT:-$HOME/.pyenv}
  uv_root=${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}
  for path in "$pyenv_root"/versions/*/bin/python "$uv_root"/*/bin/python3; do
    [ -x "$path" ] && echo "$path"
  done
  command -v uv >/dev/null && uv python find '>=3.12' 2>/dev/null
}

no_venv=
IFS='
'
for python in $(candidates); do
  if "$python" -c "$probe" >/dev/null 2>&1; then
    echo "$python"
    exit 0
  elif "$python" -c "${probe%%import ensurepip*}" >/dev/null 2>&1; then
    no_venv=$python
  fi
done

if [ -n "$no_venv" ]; then
  echo "jaxvid: $no_venv lacks the venv module (on Debian or Ubuntu:" \
    "apt install python3-venv)" >&2
else
  echo "jaxvid: no Python >= 3.12 found; install one (e.g. uv python install" \
    "3.12, or pyenv install 3.12) or set PYTHON=/path/to/python" >&2
fi
exit 1
