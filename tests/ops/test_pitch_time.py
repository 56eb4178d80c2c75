"""Relative pitch and time: against loops from the paper's equation, in steps, without an array L x L x D."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import pitch_time, relative
from attention_zoo.ops.variant import Sizes
from tests.ops.against import assert_close, normal

B, T, N, K, H, U, VOICES = 2, 11, 2, 4, 3, 5, 4
ROWS = {"positions": 6, "pitches": 2 * U - 1, "times": 3}


def example(seed=0, T=T):
  q, k, v = normal(seed, (B, T, N, K), (B, T, N, K), (B, T, N, H))
  tables = normal(seed + 1, *((R, N, K) for R in ROWS.values()))
  chance = np.random.default_rng(seed)
  pitch = chance.integers(-1, U, (B, T))
  first = chance.integers(0, 9, (B, 1))
  return [q, k, v, *tables], pitch, -(first + np.arange(T)[None]) % VOICES


def oracle(q, k, v, table, pitch_table, time_table, pitch, phase):
  """In float64, pair by pair. Time from the phase alone: it falls by one a position, and a time ends where it is 0."""
  q, k, v, table, pitch_table, time_table = (
    np.asarray(x, np.float64) for x in (q, k, v, table, pitch_table, time_table)
  )
  out = np.zeros((*q.shape[:3], v.shape[-1]))
  for b, t, n in np.ndindex(*q.shape[:3]):
    logits = []
    for s in range(t + 1):
      key = k[b, s, n] + table[max(len(table) - 1 - (t - s), 0), n]
      if pitch[b, t] >= 0 and pitch[b, s] >= 0:
        key = key + pitch_table[pitch[b, s] - pitch[b, t] + U - 1, n]
      times = sum(phase[b, i] == 0 for i in range(s, t))  # ends of a time on the way from s to t
      key = key + time_table[max(len(time_table) - 1 - times, 0), n]
      logits.append(q[b, t, n] @ key / np.sqrt(K))
    weights = np.exp(logits - np.max(logits))
    out[b, t, n] = weights / weights.sum() @ v[b, : t + 1, n]
  return out


def attention(*arrays, **options):
  return pitch_time.pitch_time_attention(*map(jnp.asarray, arrays), voices=VOICES, **options)


def test_it_is_the_papers():
  arrays, pitch, phase = example()
  assert_close(attention(*map(np.float32, arrays), pitch, phase), oracle(*arrays, pitch, phase), 1e-5)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_short_ones(length):
  arrays, pitch, phase = example(3, length)
  assert_close(attention(*map(np.float32, arrays), pitch, phase), oracle(*arrays, pitch, phase), 1e-5)


def test_without_its_tables_it_is_music_transformers():
  arrays, pitch, phase = example()
  q, k, v, table, *others = map(np.float32, arrays)
  found = attention(q, k, v, table, *(0 * x for x in others), pitch, phase)
  whole = relative.reach(jnp.asarray(table), T, causal=True)
  assert_close(found, relative.music_attention(q, k, v, whole), 1e-6)


def test_a_higher_piece_is_heard_the_same():
  arrays, pitch, phase = example()
  pitch = np.minimum(pitch, U - 2)
  higher = np.where(pitch >= 0, pitch + 1, -1)
  found = [attention(*map(np.float32, arrays), x, phase) for x in (pitch, higher)]
  assert_close(*found, 1e-6)
  assert (np.asarray(attention(*map(np.float32, arrays), pitch, phase + 1)) != np.asarray(found[0])).any()


def test_steps_equal_all_at_once():
  """A prompt, a step back, single positions, and hypotheses that are chosen anew."""
  J = 2
  variant = pitch_time.pitch_time(Sizes(8, N, K, H, causal=True), max_distance=5, pitches=U, voices=VOICES)
  chance = np.random.default_rng(0)
  p = {name: chance.standard_normal(x.shape).astype(np.float32) for name, x in variant.parameters.items()}
  draw = lambda *shape: chance.standard_normal((B, J, T, *shape)).astype(np.float32)
  q, k, v = draw(N, K), draw(N, K), draw(N, H)
  pitch, phase = chance.integers(-1, U, (B, J, T)), np.broadcast_to(-np.arange(T) % VOICES, (B, J, T))
  cache = cache_lib.start([variant], B, J, T, jnp.float32)
  found = np.zeros((B, J, T, N, H), np.float32)
  parents = np.array([[1, 0], [1, 1]])
  for start, stop in ((0, 5), (3, 4), (4, 5), (5, 9), (9, T)):
    part = [x[:, :, start:stop] for x in (q, k, v)]
    marks = tuple(jnp.asarray(x[:, :, start:stop]) for x in (pitch, phase))
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], start, stop - start)
    out, layer = variant.step(p, *part, jnp.int32(start), cache["layers"][0], ancestry_BJZ, marks=marks)
    found[:, :, start:stop] = out
    cache = {"layers": [layer], "ancestry_BJZ": ancestry_BJZ}
    if stop == 5:
      cache = cache_lib.reorder([variant], cache, parents)
      past = lambda x: np.concatenate([x[np.arange(B)[:, None], parents][:, :, :5], x[:, :, 5:]], 2)
      q, k, v, pitch, found = map(past, (q, k, v, pitch, found))
  rows = lambda x: jnp.asarray(x.reshape(B * J, *x.shape[2:]))
  whole = variant.attend(p, *map(rows, (q, k, v)), marks=(rows(pitch), rows(phase)), mask=None, dropout=None)
  assert_close(found.reshape(whole.shape), whole, 1e-5)


def test_no_array_has_a_vector_for_every_pair():
  L, wide = 64, 24
  shapes = [(1, L, N, wide)] * 3 + [(L, N, wide), (2 * U - 1, N, wide), (L // VOICES, N, wide)]
  marks = [jnp.zeros((1, L), jnp.int32)] * 2
  loss = lambda *arrays: attention(*arrays, *marks).sum()
  jaxpr = jax.make_jaxpr(jax.grad(loss, range(6)))(*(jnp.zeros(shape) for shape in shapes))
  largest = max(v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars)
  assert L * L <= largest < L * L * N * 3
