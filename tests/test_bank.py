"""A memory with a bank against one that forgets nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.memory import Memory, MemoryConfig, sparse
from jaxvid.memory.bank import BankMemory, create
from jaxvid.memory.bank_config import BankConfig
from jaxvid.ops.attention import attention
from jaxvid.ops.rope import rotate, rotation

HEADS, DIM, SIZE, CHUNK, PROMPT = 2, 12, (1, 2), 3, 4
TOKENS = CHUNK * 2
# Chunk -> scene that its prompt shows; A, B, then A again.
SCENES = [0, 0, 1, 1, 2, 1, 0, 0]


def _config(sink=0, window=9, positions='absolute', aligned=True, **bank):
  bank = BankConfig(**{'tau': 1.0, 'recent_probes': 2, **bank})
  return MemoryConfig(*SIZE, sink, window, CHUNK, positions, aligned, bank=bank)


def _memory(config, batch=1, stacked=False):
  sizes = {'batch': batch, 'layers': 2, 'heads': HEADS, 'head_dim': DIM}
  return create(config, text_dim=PROMPT, stacked=stacked, **sizes)


def _qkv(i, batch=1, tokens=TOKENS):
  keys = jax.random.split(jax.random.key(i), 3)
  shape = (batch, tokens, HEADS, DIM)
  return [jax.random.normal(key, shape) for key in keys]


def _prompt(scene, batch=1):
  table = jax.random.normal(jax.random.key(77), (8, PROMPT))
  return jnp.broadcast_to(table[scene], (batch, PROMPT))


@functools.cache
def _tick(config, batch, stacked, frames):
  """One chunk of both layers: memory -> memory and outputs."""

  def run(memory, prompt, qkv):
    memory = memory.begin(prompt)
    plan = memory.plan(frames)
    outs, caches = [], []
    for layer in range(2):
      if stacked:
        (k, length), v = memory.k, memory.v
        cache = (k[layer], length[layer]), v[layer]
      else:
        cache = memory.layer(layer)
      out, new = plan.attend(*(x[layer] for x in qkv), cache)
      outs.append(out)
      caches.append(new)
    if stacked:
      caches = jax.tree.map(lambda *x: jnp.stack(x), *caches)
    seen = memory.number, memory.rank
    memory = memory.updated(plan, caches).advance(frames)
    return memory, jnp.stack(outs), seen

  return jax.jit(run)


def _run(config, scenes, batch=1, stacked=False, first=0):
  """Outputs `[chunks, layers, B, T, N, D]` of a video of these scenes."""
  memory, outs = _memory(config, batch, stacked), []
  sizes = ([first] if first else []) + [CHUNK] * len(scenes)
  scenes = ([scenes[0]] if first else []) + list(scenes)
  for i, (frames, scene) in enumerate(zip(sizes, scenes, strict=True)):
    layers = [_qkv(10 * i + n, batch, 2 * frames) for n in range(2)]
    qkv = [jnp.stack(x) for x in zip(*layers, strict=True)]
    run = _tick(config, batch, stacked, frames)
    memory, out, _ = run(memory, _prompt(scene, batch), qkv)
    outs.append(out)
  return memory, outs


def _seen_by(c, scenes, sink, recent, retrieved, literal=False):
  """Chunks that chunk c sees, by algorithm 1 in plain Python."""
  lag = 2 if literal else 1
  fixed = set(range(min(sink, c)))
  fixed |= {i for i in range(c - lag - recent + 1, c - lag + 1) if i >= 0}
  e = [np.asarray(_prompt(s)[0]) for s in scenes]

  def like(i):
    cos = e[i] @ e[c] / np.linalg.norm(e[i]) / np.linalg.norm(e[c])
    return (round(float(cos), 4), i)

  free = sorted((i for i in range(c) if i not in fixed), key=like)
  return sorted(fixed | set(free[len(free) - min(retrieved, len(free)) :]))


@pytest.mark.parametrize(
  'sink, window, options, positions, stacked',
  [
    (0, 9, {'retrieved': 1, 'capacity': 8}, 'absolute', True),
    (3, 6, {'retrieved': 2, 'capacity': 8}, 'relative', False),
    (0, 9, {'retrieved': 2, 'capacity': 8, 'literal': True}, 'relative', True),
    (0, 6, {'retrieved': 0, 'capacity': 3}, 'relative', True),
    (0, 3, {'retrieved': 3, 'capacity': 9}, 'absolute', False),
  ],
)
def test_chunks_see_what_algorithm_1_says(
  sink, window, options, positions, stacked
):
  config = _config(sink, window, positions, **options)
  _, outs = _run(config, SCENES, stacked=stacked)
  recent = window // CHUNK - 1
  for c in range(len(SCENES)):
    seen = _seen_by(
      c,
      SCENES,
      sink // CHUNK,
      recent,
      options['retrieved'],
      options.get('literal', False),
    )
    frames = [CHUNK * i + f for i in [*seen, c] for f in range(CHUNK)]
    if positions == 'relative':
      frames = list(range(len(frames)))
    turn = rotation(jnp.asarray(frames), *SIZE, DIM)
    for layer in range(2):
      parts = [_qkv(10 * i + layer) for i in [*seen, c]]
      k, v = (jnp.concatenate([p[n] for p in parts], 1) for n in (1, 2))
      q = rotate(parts[-1][0], turn[:, -TOKENS:])
      expected = attention(q, rotate(k, turn), v)
      np.testing.assert_allclose(outs[c][layer], expected, atol=2e-5)


def test_everything_kept_and_retrieved_is_dense_attention():
  """tau = 1 and l = all past chunks: the memory that never forgets."""
  config = _config(window=9, retrieved=5, capacity=8)
  _, outs = _run(config, SCENES)
  dense = MemoryConfig(*SIZE, 0, CHUNK * len(SCENES), CHUNK)
  memory = Memory.create(dense, batch=1, layers=1, heads=HEADS, head_dim=DIM)
  for c in range(len(SCENES)):
    plan = memory.plan(CHUNK)
    expected, cache = plan.attend(*_qkv(10 * c), memory.layer(0))
    memory = memory.updated(plan, [cache]).advance(CHUNK)
    np.testing.assert_allclose(outs[c][0], expected, atol=1e-5)


@pytest.mark.parametrize('first', [0, 1])
def test_entries_are_what_the_selection_keeps(first):
  config = _config(tau=0.6, retrieved=1, capacity=9, aligned=not first)
  memory, _ = _run(config, SCENES, batch=2, first=first)
  assert memory.frame == CHUNK * len(SCENES) + first
  for number in range(1, 9):
    frames = first if first and number == 1 else CHUNK
    q, k, v = _qkv(10 * (number - 1) + 1, 2, 2 * frames)
    start = (number - 1) * CHUNK - (0 if not first else CHUNK - first)
    start = max(start, 0)
    turn = rotation(start + jnp.arange(frames), *SIZE, DIM)
    q, k = rotate(q, turn), rotate(k, turn)
    key = jax.random.fold_in(jax.random.key(0), 2 * (number - 1) + 1)
    probes = sparse.probe_index(key, 2 * frames, 2, 64)
    scores = sparse.cumulative_mean(sparse.importance(q, k, probes, True))
    index, count = sparse.select(scores, 0.6, TOKENS)
    layer = memory.layers[1]
    for b in range(2):
      entry = int(jnp.argmax(memory.number[b] == number))
      kept = int(layer.kept[b, entry])
      assert kept == count[b]
      wanted = index[b, :kept]
      offset = TOKENS - 2 * frames
      assert layer.place[b, entry, :kept].tolist() == (wanted + offset).tolist()
      np.testing.assert_allclose(
        layer.k[b, entry, :kept], k[b, wanted], atol=1e-5
      )
      np.testing.assert_allclose(layer.v[b, entry, :kept], v[b, wanted])


def test_samples_retrieve_for_themselves():
  config = _config(window=6, retrieved=1, capacity=6)
  alone = [
    _run(config, scenes)[1][-1] for scenes in ([0, 1, 2, 0], [0, 1, 2, 1])
  ]
  memory, outs = _memory(config, 2), []
  for i, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1)]):
    layers = [_qkv(10 * i + n) for n in range(2)]
    qkv = [
      jnp.concatenate([jnp.stack(x)] * 2, 1) for x in zip(*layers, strict=True)
    ]
    prompt = jnp.concatenate([_prompt(a), _prompt(b)])
    memory, out, _ = _tick(config, 2, False, CHUNK)(memory, prompt, qkv)
    outs.append(out)
  for b in range(2):
    np.testing.assert_allclose(outs[-1][:, b], alone[b][:, 0], atol=1e-5)
  assert jnp.abs(outs[-1][:, 0] - outs[-1][:, 1]).max() > 1e-3


def _numbers(config, scenes):
  memory = _run(config, scenes)[0]
  return sorted(memory.number[0].tolist())


def test_a_full_bank_loses_what_is_least_like_the_recent_prompts():
  config = _config(window=6, retrieved=1, capacity=4)
  # Two of scene 0, then scene 1: of scene 0 nothing is left.
  assert _numbers(config, [0, 0, 1, 1, 1, 1]) == [3, 4, 5, 6]
  # The scene that is shown again stays, the one in between goes.
  assert _numbers(config, [0, 0, 1, 0, 0]) == [1, 2, 4, 5]


def test_a_redundant_chunk_makes_room_so_that_every_scene_stays():
  config = _config(window=6, retrieved=1, capacity=4, evict='redundant')
  left = _numbers(config, [0, 0, 1, 1, 1, 1, 2, 2, 2])
  assert 2 in left and {8, 9} <= set(left)
  assert any(3 <= n <= 6 for n in left)


def test_a_scene_is_kept_as_it_was_first_seen():
  options = {'evict': 'redundant', 'alike': 'earlier'}
  config = _config(window=6, retrieved=1, capacity=4, **options)
  scenes = [0, 0, 1, 1, 1, 1, 0, 0, 0]
  assert _numbers(config, scenes) == [1, 2, 3, 9]


@pytest.mark.parametrize('evict', ['dissimilar', 'redundant'])
@pytest.mark.parametrize('sink', [0, 3])
def test_a_rolling_cache_holds_what_came_last(evict, sink):
  options = {'evict': evict, 'alike': 'earlier', 'retrieval': 'recent'}
  config = _config(window=6, retrieved=2, capacity=5, sink=sink, **options)
  held = _numbers(config, [0, 0, 1, 1, 1, 1, 0, 2, 2])
  assert held == ([1, 6, 7, 8, 9] if sink else [5, 6, 7, 8, 9])


def test_a_chunk_made_again_replaces_itself():
  config = _config(window=9, retrieved=1, capacity=5)
  memory, _ = _run(config, [0, 1, 2, 0])
  again = memory.at(6)
  assert int(again.count) == 2
  qkv = [jnp.stack([x, x]) for x in _qkv(99)]
  new = _tick(config, 1, False, CHUNK)(again, _prompt(5), qkv)[0]
  assert sorted(new.number[0].tolist()) == [0, 1, 2, 3, 4]
  entry = int(jnp.argmax(new.number[0] == 3))
  np.testing.assert_allclose(new.prompt[0, entry], _prompt(5)[0])
  back = new.at(12)
  np.testing.assert_allclose(
    sorted(back.number[0].tolist()), sorted(memory.number[0].tolist())
  )


def test_dropped_tokens_are_left_out_of_the_context():
  config = _config(window=12, retrieved=2, capacity=8, drop=0.5)
  memory = _run(config, SCENES)[0].begin(_prompt(0))
  lengths = [int(layer.length[0]) for layer in memory.layers]
  assert all(5 < n < 25 for n in lengths)  # Of 5 chunks of 6 tokens.
  again = _run(config, SCENES)[0].begin(_prompt(0))
  assert lengths == [int(layer.length[0]) for layer in again.layers]


@pytest.mark.parametrize('literal', [False, True])
def test_room_and_layers_shared(literal):
  config = _config(
    tau=1.0, room=0.5, share_layers=True, capacity=8, literal=literal
  )
  memory, _ = _run(config, SCENES)
  assert memory.layers[0].k.shape[2] == TOKENS // 2
  assert (memory.layers[0].kept[memory.number > 0] == TOKENS // 2).all()
  for n in ('place', 'kept'):
    a, b = (getattr(layer, n) for layer in memory.layers)
    np.testing.assert_array_equal(a, b)


def test_nothing_grows_with_the_video():
  config = _config(tau=0.9, capacity=5)
  tick = _tick(config, 1, False, CHUNK)
  before = tick._cache_size()
  memory, _ = _run(config, SCENES * 3)
  assert tick._cache_size() - before <= 1
  sizes = jax.tree.map(jnp.shape, memory)
  assert sizes == jax.tree.map(jnp.shape, _memory(config))


def test_an_emptied_memory_is_a_new_one():
  config = _config(retrieved=1, capacity=8)
  memory = jax.tree.map(jnp.zeros_like, _run(config, SCENES)[0])
  fresh = _memory(config)
  qkv = [jnp.stack([x, x]) for x in _qkv(3)]
  for _ in range(3):
    run = _tick(config, 1, False, CHUNK)
    memory, a, _ = run(memory, _prompt(1), qkv)
    fresh, b, _ = run(fresh, _prompt(1), qkv)
    np.testing.assert_array_equal(a, b)


def test_kind_of_memory():
  ring = MemoryConfig(*SIZE, 3, 9)
  sizes = {'batch': 1, 'layers': 1, 'heads': HEADS, 'head_dim': DIM}
  assert isinstance(create(ring, text_dim=PROMPT, **sizes), Memory)
  assert isinstance(create(_config(), text_dim=PROMPT, **sizes), BankMemory)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'sink': 2}, 'sink must be a multiple of 3, not 2'),
    ({'window': 8}, r'window must be a multiple of 3, not 8 \(nearest: 9\)'),
    ({'capacity': 2}, 'capacity must be at least 3'),
    ({'capacity': 3, 'literal': True}, 'capacity must be at least 4'),
    ({'tau': 0.0}, 'tau must be in'),
    ({'room': 1.5}, 'room must be in'),
    ({'drop': 1.0}, 'drop must be in'),
    ({'retrieved': -1}, 'retrieved'),
    ({'recent_probes': 0, 'random_probes': 0}, 'no probes'),
    ({'evict': 'oldest'}, "'oldest'"),
    ({'retrieval': 'best'}, "'best'"),
  ],
)
def test_impossible_banks_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    _config(**options)
