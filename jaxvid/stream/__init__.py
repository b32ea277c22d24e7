"""Streams: a prompt and a key in, latents and frames out, without an end."""
