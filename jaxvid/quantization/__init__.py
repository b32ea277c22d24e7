"""Weights, and inputs of linear layers, in 8 bits."""
