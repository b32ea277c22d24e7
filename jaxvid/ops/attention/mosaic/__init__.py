"""Our own attention kernel for Hopper GPUs, in Pallas Mosaic GPU."""
