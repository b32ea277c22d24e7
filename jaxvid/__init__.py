"""jaxvid: text in, endless video out, in one small JAX library."""

__version__ = '0.1.0'
