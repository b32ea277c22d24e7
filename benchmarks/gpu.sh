#!/bin/sh
# Measures everything on one GPU in under 9 minutes, on a machine that has
# only jax, flax, optax, chex, einops, orbax and numpy:
#
#   benchmarks/gpu.sh [folder for results]
#
# Each part runs in a process of its own and writes its results as they come.
cd "$(dirname "$0")/.." || exit 1
PYTHONUNBUFFERED=1 exec "${PYTHON:-python3}" -m benchmarks.gpu \
  --output="${1:-benchmarks/results}"
