"""Kernels: a reference first, then faster backends behind one function."""
