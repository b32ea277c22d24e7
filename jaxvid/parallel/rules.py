"""Where each parameter of our models lives: one table per model family.

Specs read from the last axis backwards: a dense kernel is [in, out]. Column
layers (q, k, v, the first of an FFN) are split over `tensor` by their output,
row layers (o, the second of an FFN) by their input, so one all-reduce follows
each pair. `fsdp` takes the other axis.
"""

from jax.sharding import PartitionSpec as P

TRANSFORMER = (
  (r'(self|cross)_attn/(q|k|v|k_img|v_img)/kernel$', P('fsdp', 'tensor')),
  (r'(self|cross)_attn/o/kernel$', P('tensor', 'fsdp')),
  (r'attn/(q|k|v)/kernel$', P('fsdp', 'tensor')),
  (r'attn/o/kernel$', P('tensor', 'fsdp')),
  (r'ffn_0/kernel$', P('fsdp', 'tensor')),
  (r'ffn_2/kernel$', P('tensor', 'fsdp')),
  (r'ffn/(gate_0|fc1)/kernel$', P('fsdp', 'tensor')),
  (r'ffn/fc2/kernel$', P('tensor', 'fsdp')),
  (r'embedding$', P('fsdp', 'tensor')),
  # All other dense and convolution kernels: split the outputs.
  (r'kernel$', P('fsdp')),
)

# The same over all devices that share a batch: nothing is held twice.
FULLY_SHARDED = tuple(
  (pattern, P(*(('fsdp', 'context') if a == 'fsdp' else a for a in spec)))
  for pattern, spec in TRANSFORMER
)

REPLICATED = ()
