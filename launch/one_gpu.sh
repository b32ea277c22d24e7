#!/bin/sh
# Runs a config on one NVIDIA GPU:
#
#   sh launch/one_gpu.sh --config=configs/demo.py --config.seconds=60
#
# Installs CUDA from pip beside the rest on the first call (the driver must be
# there already). GPU=1 chooses another than the first.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
if [ ! -e .venv/.cuda ]; then
  [ -x "$python" ] || "$(sh launch/find_python.sh)" -m venv .venv
  "$python" -m pip install --quiet --editable '.[cuda]' \
    --constraint constraints.txt
  touch .venv/.cuda
fi
export CUDA_VISIBLE_DEVICES="${GPU:-0}"
exec "$python" -m jaxvid.main "$@"
