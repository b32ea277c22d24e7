"""Weights on disk: files mapped into memory, and folders of our own."""
