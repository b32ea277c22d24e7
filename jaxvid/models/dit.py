"""The Wan2.1 diffusion transformer, bidirectional and causal.

One set of parameters serves both: what a token may attend is said by a plan
(`jaxvid.memory`), not by the network. Facts: Wan2.1 `wan/modules/model.py`,
Self-Forcing `wan/modules/causal_model.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn

from jaxvid.errors import UserError
from jaxvid.memory import linear
from jaxvid.memory.memory import Memory
from jaxvid.memory.plan import parallel
from jaxvid.models.dit_block import (
  AAPT_8B,
  WAN_1_3B,
  WAN_14B,
  Attention,
  Block,
  DiTConfig,
  Head,
  Modulation,
  TextKV,
  gelu,
  modulation_parts,
  timestep_embedding,
)
from jaxvid.models.layers import Dense, Params

__all__ = [
  'AAPT_8B',
  'WAN_1_3B',
  'WAN_14B',
  'Attention',
  'Block',
  'DiT',
  'DiTConfig',
  'Head',
  'Modulation',
  'TextKV',
  'modulation',
  'text_kv',
  'timestep_embedding',
]


class DiT(nn.Module):
  """`velocity, memory = dit.apply(params, x, t, text, memory)`: one tick.

  Attributes:
    config: sizes.
    dtype: compute type; norms, modulation, rotation and softmax stay float32.
    scan: True scans over layers (parameters stacked under `blocks`; quick to
      compile, for training), False unrolls them (`blocks_0`, ...; memory in
      place, for streaming). `stack_layers` / `unstack_layers` convert.
    remat: name of a `jax.checkpoint_policies` entry for the scanned layers,
      or None to keep all activations.
    fused: parameters are those of `models.fused.fuse`.
    residual: type of the tokens between layers; None = `dtype`.
    backend: of all attention, see `ops.attention`.
  """

  config: DiTConfig
  dtype: jnp.dtype = jnp.float32
  scan: bool = True
  remat: str | None = None
  fused: bool = False
  residual: jnp.dtype | None = None
  backend: str = 'auto'

  def __call__(
    self,
    x: jax.Array,
    t: jax.Array | Modulation,
    text: jax.Array | TextKV,
    memory: Memory | None = None,
    plan=None,
  ) -> tuple[jax.Array, Memory | None]:
    """One evaluation of the velocity field.

    Args:
      x: noisy latents `[B, F, H, W, C]`.
      t: timesteps 0..1000, `[B]` or one per latent frame `[B, F]`, or the
        `Modulation` they amount to.
      text: text encoder output `[B, <= text_len, text_dim]` (zero-padded
        here), or the prompt's `TextKV`. One prompt per chunk, n of equal
        length, is `[B, n, <= text_len, text_dim]`.
      memory: past keys and values; None for a clip in one pass.
      plan: overrides what to attend; by default `memory.plan`, or everything
        at frames 0..F-1 when there is no memory.

    Returns:
      Velocity (noise - x0) `[B, F, H, W, C]` and the memory with this
      chunk's K/V written, not yet advanced.
    """
    velocity, memory, _ = self._forward(x, t, text, memory, plan, ())
    return velocity, memory

  def features(
    self,
    x: jax.Array,
    t: jax.Array,
    text: jax.Array | TextKV,
    layers: tuple[int, ...],
    plan=None,
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The velocity of a whole clip, and what chosen blocks returned.

    Args:
      x, t, text, plan: see `__call__`.
      layers: indices of blocks, 0 = the first.

    Returns:
      Velocity `[B, F, H, W, C]` and, for each layer, tokens `[B, F, P, D]`.
    """
    wrong = [i for i in layers if not 0 <= i < self.config.num_layers]
    if wrong:
      last = self.config.num_layers - 1
      raise UserError(f'layers {wrong} do not exist; allowed: 0 to {last}')
    velocity, _, tokens = self._forward(x, t, text, None, plan, layers)
    return velocity, tokens

  @nn.compact
  def _forward(self, x, t, text, memory, plan, layers):
    config = self.config
    frames, height, width = x.shape[1], x.shape[2] // 2, x.shape[3] // 2
    if plan is None and memory is None:
      whole = linear.parallel if config.linear else parallel
      plan = whole(
        np.arange(frames),
        height,
        width,
        config.head_dim,
        theta=config.rope_theta,
        backend=self.backend,
        grid=config.rope_grid,
        split=self.fused,
      )
    elif plan is None:
      plan = memory.plan(
        frames, self.backend, config.rope_theta, config.rope_grid
      )
    if not isinstance(t, Modulation):
      embedded, time = self._time(t if t.ndim == 2 else t[:, None])
    else:
      embedded, time = modulation_parts(t.head), modulation_parts(t.blocks)
    tokens = self._patches(x)
    if not isinstance(text, TextKV):
      text = self._text(text)
    tokens, caches, kept = self._blocks(
      tokens, memory, text, time, plan, layers
    )
    out = Head(config, self.dtype, name='head')(tokens, embedded)
    velocity = rearrange(
      out, 'b f (h w) (i j c) -> b f (h i) (w j) c', h=height, i=2, j=2
    )
    if memory is not None:
      memory = memory.updated(plan, caches)
    return velocity.astype(jnp.float32), memory, kept

  def _patches(self, x):
    config = self.config
    shape = (*config.patch_size, config.in_dim, config.dim)
    kernel = self.param('patch_embedding', lambda key: _patch_init(key, shape))
    h = rearrange(x, 'b f (h i) (w j) c -> b f (h w) (i j c)', i=2, j=2)
    weight = kernel['kernel'].reshape(-1, config.dim).astype(self.dtype)
    h = h.astype(self.dtype) @ weight + kernel['bias'].astype(self.dtype)
    return h.astype(self.residual or self.dtype)

  def _text(self, text):
    dim = self.config.dim
    h = _pad_text(self.config, text)
    h = Dense(dim, dtype=self.dtype, name='text_embedding_0')(h)
    return Dense(dim, dtype=self.dtype, name='text_embedding_2')(gelu(h))

  def _time(self, t):
    config = self.config
    e = timestep_embedding(t, config.freq_dim)
    e = Dense(config.dim, name='time_embedding_0')(e)
    e = Dense(config.dim, name='time_embedding_2')(nn.silu(e))
    e0 = Dense(6 * config.dim, name='time_projection_1')(nn.silu(e))
    if config.fps:
      table = nn.Embed(2, config.dim, name='fps_embedding')
      row = table(jnp.asarray(_fps_row(config)))
      h = Dense(config.dim, name='fps_projection_0')(row)
      e0 += Dense(6 * config.dim, name='fps_projection_2')(nn.silu(h))
    return e, e0.reshape(*t.shape, 6, config.dim)

  def _blocks(self, x, memory, text, time, plan, layers):
    config, block = self.config, Block
    ready, timed = isinstance(text, TextKV), isinstance(time, tuple)
    if not self.scan:
      caches, outputs = [], []
      for i in range(config.num_layers):
        cache = None if memory is None else memory.layer(i)
        layer_text = (text.k[i], text.v[i]) if ready else text
        layer_time = tuple(m[i] for m in time) if timed else time
        x, cache = block(config, self.dtype, self.fused, name=f'blocks_{i}')(
          x, cache, layer_text, layer_time, plan
        )
        caches.append(cache)
        outputs.append(x)
      return x, caches, tuple(outputs[i] for i in layers)
    if self.remat is not None:
      policy = getattr(jax.checkpoint_policies, self.remat)
      block = nn.remat(Block, prevent_cse=False, policy=policy)

    def layer(block, carry, chosen, cache, text, time, plan):
      x, kept = carry
      x, cache = block(x, cache, text, time, plan)
      # Selecting keeps the chosen tokens alone, not those of every layer.
      kept = [jnp.where(c, x, k) for c, k in zip(chosen, kept, strict=True)]
      return (x, tuple(kept)), cache

    scan = nn.scan(
      layer,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(
        0,
        0,
        0 if ready else nn.broadcast,
        0 if timed else nn.broadcast,
        nn.broadcast,
      ),
      length=config.num_layers,
    )
    chosen = tuple(np.arange(config.num_layers) == i for i in layers)
    cache = None if memory is None else (memory.k, memory.v)
    text = (text.k, text.v) if ready else text
    blocks = block(config, self.dtype, self.fused, name='blocks')
    (x, kept), caches = scan(
      blocks, (x, (x,) * len(layers)), chosen, cache, text, time, plan
    )
    return x, caches, kept


def _patch_init(key, shape):
  flat = nn.initializers.lecun_normal()(
    key, (int(np.prod(shape[:-1])), shape[-1])
  )
  return {'kernel': flat.reshape(shape), 'bias': jnp.zeros(shape[-1])}


def _pad_text(config: DiTConfig, text: jax.Array) -> jax.Array:
  pads = [(0, 0)] * text.ndim
  pads[-2] = (0, config.text_len - text.shape[-2])
  return jnp.pad(text, pads)


@functools.partial(jax.jit, static_argnums=(0, 3))
def text_kv(
  config: DiTConfig,
  params: Params,
  text: jax.Array,
  dtype: jnp.dtype = jnp.float32,
) -> TextKV:
  """Keys and values of a prompt for every layer, to be reused by all ticks.

  Args:
    config: sizes.
    params: the transformer's parameters, stacked or unrolled.
    text: text encoder output `[B, <= text_len, text_dim]`.
    dtype: compute type.

  Returns:
    `TextKV` in the layout of `params`.
  """
  dense = Dense(config.dim, dtype=dtype)
  h = _pad_text(config, text)
  h = dense.apply({'params': params['text_embedding_0']}, h)
  h = dense.apply({'params': params['text_embedding_2']}, gelu(h))

  def layer(block):
    module = Attention(config, dtype, 'kv' in block['cross_attn'])
    return module.apply({'params': block['cross_attn']}, h, method='key_value')

  mean = mean_embedding(text)
  if 'blocks' in params:
    k, v = jax.vmap(layer)(params['blocks'])
    return TextKV(k, v, mean)
  pairs = [layer(params[f'blocks_{i}']) for i in range(config.num_layers)]
  k, v = zip(*pairs, strict=True)
  return TextKV(k, v, mean)


def mean_embedding(text: jax.Array) -> jax.Array:
  """Mean of encoded text `[..., rows, text_dim]` over rows that are not 0.

  The text encoder's rows of padding are 0. Returns float32 `[..., text_dim]`.
  """
  text = text.astype(jnp.float32)
  rows = jnp.sum(jnp.any(text != 0, -1), -1)[..., None]
  return jnp.sum(text, -2) / jnp.maximum(rows, 1)


def _fps_row(config: DiTConfig) -> int:
  # SkyReels-V2: the first row means 16 frames per second, the second others.
  return 0 if config.fps == 16 else 1


def modulation(config: DiTConfig, params: Params, t: jax.Array) -> Modulation:
  """What time steps do to every layer, to be reused by all chunks.

  Args:
    config: sizes.
    params: the transformer's parameters, stacked or unrolled.
    t: timesteps 0..1000 `[B, F or 1]`.
  """

  def dense(name, x, features) -> jax.Array:
    return Dense(features).apply({'params': params[name]}, x)

  e = timestep_embedding(t, config.freq_dim)
  e = dense('time_embedding_0', e, config.dim)
  e = dense('time_embedding_2', nn.silu(e), config.dim)
  time = dense('time_projection_1', nn.silu(e), 6 * config.dim)
  if config.fps:
    h = params['fps_embedding']['embedding'][_fps_row(config)]
    h = nn.silu(dense('fps_projection_0', h, config.dim))
    time += dense('fps_projection_2', h, 6 * config.dim)
  time = time.reshape(*t.shape, 6, config.dim)
  if 'blocks' in params:
    tables = params['blocks']['modulation']
  else:
    layers = range(config.num_layers)
    tables = jnp.stack([params[f'blocks_{i}']['modulation'] for i in layers])
  head = e[..., None, :] + params['head']['modulation']
  return Modulation(time + tables[:, None, None], head)
