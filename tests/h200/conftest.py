"""Tests that compile for an H200 without one: `make test-h200`.

They need an environment of their own and run apart: what tests/conftest.py
turns off, the compiler needs here.
"""

from benchmarks import h200

__all__ = ['h200']  # Before jax is used: it says for what to compile.
