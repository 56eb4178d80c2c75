"""Stochastic beam search against plain loops over the same draws, known distributions, and greedy decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.decoding import sampling
from attention_zoo.decoding.beam import gather_beams
from attention_zoo.decoding.stochastic_beam import keys_of, stochastic_beam_search
from tests.decoding import toys
from tests.decoding.toys import BOS, EOS, PAD

STATIC = ("beam_size", "samples", "segment_length", "max_length", "n_best")


@functools.partial(jax.jit, static_argnames=STATIC)
def run(
  tables_BMV, keys_B, limits_B, alpha, temperature, *, beam_size, samples, segment_length, max_length, n_best=None
):
  model = toys.decoding(tables_BMV, beam_size * samples)

  def step(tokens_BJ, t, cache):
    logits_BJ1V, cache = model.step(tokens_BJ[..., None], t, cache)
    return logits_BJ1V[:, :, 0], cache

  return stochastic_beam_search(
    step, model.cache, batch_size=len(tables_BMV), beam_size=beam_size, samples=samples, segment_length=segment_length,
    temperature=temperature, keys_B=keys_B, max_lengths_B=limits_B, max_length=max_length, bos=BOS, eos=EOS,
    alpha=alpha, n_best=n_best,
  )  # fmt: skip


def search(tables_BMV, limits_B, *, alpha=0.6, temperature=1.0, seed=0, **sizes):
  keys_B = jax.vmap(jax.random.key)(seed + jnp.arange(len(tables_BMV)))
  limits_B = jnp.asarray(limits_B, jnp.int32)
  found = run(jnp.asarray(tables_BMV), keys_B, limits_B, jnp.float32(alpha), jnp.float32(temperature), **sizes)
  return jax.tree.map(np.asarray, found)


def reference(table_MV, key, limit, alpha, temperature, *, beam_size, samples, segment_length):
  """As one would explain it: [(tokens, score, log-probability)] with the draws of the search, best first."""
  logprobs_MV = toys.log_softmax(table_MV)
  score = lambda tokens, logprob: logprob / toys.penalty(len(tokens), alpha)
  first = ((), 0.0, toys.next_state(0, BOS, len(table_MV)))
  beam, t = [first] * beam_size, 0
  while t < limit and not all(h and h[0][-1:] == (EOS,) for h in beam if h):
    # The j-th of the beam draws with the keys of places j * samples and on; None: no hypothesis.
    drawn = [h for h in beam for _ in range(samples)]
    for _ in range(min(segment_length, limit - t)):
      for i, hypothesis in enumerate(drawn):
        if hypothesis is None or hypothesis[0][-1:] == (EOS,):
          continue
        tokens, logprob, state = hypothesis
        own = jax.random.fold_in(jax.random.fold_in(key, t), i)
        token = int(jax.random.categorical(own, jnp.asarray(table_MV[state]) / temperature))
        after = toys.next_state(state, token, len(table_MV))
        drawn[i] = (*tokens, token), logprob + logprobs_MV[state, token], after
      t += 1
    different = list({h[0]: h for h in drawn if h}.values())
    if t >= limit and any(h[0][-1] == EOS for h in different):
      different = [h for h in different if h[0][-1] == EOS]
    beam = sorted(different, key=lambda h: -score(*h[:2]))[:beam_size]
    beam += [None] * (beam_size - len(beam))
  return [(h[0], score(*h[:2]), h[1]) for h in beam if h]


@pytest.mark.parametrize(
  ("beam_size", "samples", "segment_length", "limits", "temperature"),
  [(3, 4, 2, [9, 4, 1], 1.0), (1, 5, 3, [7, 6, 0], 0.5), (4, 1, 1, [6, 5, 3], 1.0), (2, 3, 20, [8, 8, 2], 2.0)],
)
def test_is_the_plain_loop(beam_size, samples, segment_length, limits, temperature):
  tables_BMV = toys.random_tables(3, 3)
  sizes = dict(beam_size=beam_size, samples=samples, segment_length=segment_length)
  found = search(tables_BMV, limits, temperature=temperature, seed=5, max_length=9, **sizes)
  for b, limit in enumerate(limits):
    wanted = [((), 0.0, 0.0)]
    if limit:
      wanted = reference(tables_BMV[b], jax.random.key(5 + b), limit, 0.6, temperature, **sizes)
    toys.assert_matches(found, b, wanted)


def test_without_temperature_it_is_greedy_decoding():
  """Token for token what sampling at temperature 0 gives; all continuations are one hypothesis."""
  tables_BMV = toys.random_tables(7, 4)
  found = search(tables_BMV, [12] * 4, temperature=0.0, beam_size=3, samples=2, segment_length=4, max_length=12)
  model = toys.decoding(jnp.asarray(tables_BMV), 1)
  prompt = jnp.full((4, 1), BOS)
  state = sampling.begin(model, prompt, 1, jnp.zeros(4, jnp.int32), room=13, pad=PAD)
  state = sampling.advance(model.step, state, 13, sampling.Options(temperature=0.0), eos=EOS)
  np.testing.assert_array_equal(found.tokens_BJT[:, 0], state.tokens_BL[:, 1:])
  np.testing.assert_array_equal(found.lengths_BJ[:, 0], state.lengths_B - 1)
  np.testing.assert_allclose(found.logprobs_BJ[:, 0], state.logprobs_BL.sum(1), rtol=1e-5)
  assert (found.lengths_BJ[:, 1:] == 0).all() and (found.scores_BJ[:, 1:] == -np.inf).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_one_continuation_of_one_hypothesis_is_a_sample(temperature):
  """Of 4,000 rows, the first two tokens have the frequencies that the model gives them, at that temperature."""
  rows, table_MV = 4000, toys.random_tables(1, 1)[0]
  sizes = dict(beam_size=1, samples=1, segment_length=1, max_length=2)
  found = search(np.broadcast_to(table_MV, (rows, *table_MV.shape)), [2] * rows, temperature=temperature, **sizes)
  probabilities_MV = np.exp(toys.log_softmax(table_MV / temperature))
  state, wanted = toys.next_state(0, BOS, len(table_MV)), {}
  for first, p in enumerate(probabilities_MV[state]):
    after = toys.next_state(state, first, len(table_MV))
    for second, q in enumerate(probabilities_MV[after]) if first != EOS else [(PAD, 1.0)]:
      wanted[first, second] = p * q
  for pair, p in wanted.items():
    share = (found.tokens_BJT[:, 0] == pair).all(1).mean()
    assert abs(share - p) < 4 * (p * (1 - p) / rows) ** 0.5 + 1e-9, pair


def test_log_probabilities_are_the_models_whatever_the_temperature():
  tables_BMV = toys.random_tables(2, 2)
  found = search(tables_BMV, [8, 8], temperature=3.0, beam_size=4, samples=4, segment_length=3, max_length=8)
  for b, table_MV in enumerate(tables_BMV):
    logprobs_MV = toys.log_softmax(table_MV)
    for j in range(4):
      state, total = toys.next_state(0, BOS, len(table_MV)), 0.0
      for token in found.tokens_BJT[b, j, : found.lengths_BJ[b, j]]:
        total, state = total + logprobs_MV[state, token], toys.next_state(state, int(token), len(table_MV))
      assert found.logprobs_BJ[b, j] == pytest.approx(total, rel=1e-5)


def test_more_continuations_find_better_hypotheses():
  """With many, of a segment as long as the text, the best of all; with one, seldom."""
  tables_BMV = np.concatenate([toys.random_tables(seed, 1) for seed in range(8)])
  best = [toys.exhaustive_search(table_MV, 4, 0.0)[0][1] for table_MV in tables_BMV]
  few, many = (
    search(tables_BMV, [4] * 8, alpha=0.0, beam_size=1, samples=samples, segment_length=4, max_length=4).scores_BJ[:, 0]
    for samples in (1, 400)
  )
  np.testing.assert_allclose(many, best, rtol=1e-5)
  assert few.mean() < many.mean() - 0.5


def test_a_sentence_depends_on_nothing_but_itself_and_its_key():
  tables_BMV = toys.random_tables(4, 3)
  sizes = dict(beam_size=2, samples=3, segment_length=2, max_length=9)
  together, again = (search(tables_BMV, [9, 3, 6], seed=2, **sizes) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, together, again)
  for b, limit in enumerate([9, 3, 6]):
    alone = search(tables_BMV[b : b + 1], [limit], seed=2 + b, **sizes)
    jax.tree.map(lambda x, y, b=b: np.testing.assert_array_equal(x[b], y[0]), together, alone)
  other = search(tables_BMV, [9, 3, 6], seed=20, **sizes)
  assert (other.tokens_BJT != together.tokens_BJT).any()


def test_keys_follow_seed_and_text_and_not_the_padding():
  data = lambda seed, rows: np.asarray(jax.random.key_data(keys_of(seed, jnp.asarray(rows, jnp.int32))))
  first = data(0, [[5, 6, 2], [6, 5, 2], [5, 6, 0]])
  assert len({tuple(key) for key in first}) == 3
  np.testing.assert_array_equal(first, data(0, [[5, 6, 2, 0], [6, 5, 2, 0], [5, 6, 0, 0]]))
  assert (first != data(1, [[5, 6, 2], [6, 5, 2], [5, 6, 0]])).any(1).all()


def test_what_is_not_a_number_is_shown():
  tables_BMV = toys.random_tables(4, 2)
  tables_BMV[0] = np.nan
  found = search(tables_BMV, [5, 5], beam_size=2, samples=2, segment_length=2, max_length=5)
  assert np.isnan(found.scores_BJ[0]).all() and not found.lengths_BJ[0].any()
  assert np.isfinite(found.scores_BJ[1, 0])


def test_a_coverage_is_part_of_the_score():
  """With one that punishes long texts beyond all measure, a short one wins."""
  tables_BMV = toys.random_tables(6, 1)
  model = toys.decoding(jnp.asarray(tables_BMV), 40)
  cache = {"state": model.cache["state"], "fed": jnp.zeros((1, 40))}

  def step(tokens_BJ, t, cache):
    logits_BJ1V, new = model.step(tokens_BJ[..., None], t, {"state": cache["state"]})
    return logits_BJ1V[:, :, 0], new | {"fed": cache["fed"] + 1}

  find = functools.partial(
    stochastic_beam_search, step, cache, batch_size=1, beam_size=1, samples=40, segment_length=6, temperature=1.0,
    keys_B=keys_of(0, jnp.ones((1, 1), jnp.int32)), max_lengths_B=jnp.array([6]), max_length=6, bos=BOS, eos=EOS,
    alpha=0.0, reorder=gather_beams,
  )  # fmt: skip
  plain, punished = find(), find(coverage=lambda cache: -100.0 * cache["fed"])
  assert punished.lengths_BJ[0, 0] <= plain.lengths_BJ[0, 0]
  length, logprob = punished.lengths_BJ[0, 0], punished.logprobs_BJ[0, 0]
  assert punished.scores_BJ[0, 0] == pytest.approx(float(logprob - 100 * length), rel=1e-6)


@pytest.mark.parametrize("change", [{"samples": 0}, {"segment_length": 0}, {"n_best": 3}])
def test_sizes_that_do_not_fit_are_told(change):
  sizes = dict(beam_size=2, samples=2, segment_length=2, max_length=5) | change
  with pytest.raises(ValueError, match="want samples, segment_length, max_length >= 1"):
    search(toys.random_tables(0, 1), [5], **sizes)


def test_room_grows_to_the_whole_length():
  """A cache with room gets it at once."""
  asked = []
  model = toys.decoding(jnp.asarray(toys.random_tables(0, 1)), 2)

  def step(tokens_BJ, t, cache):
    logits_BJ1V, cache = model.step(tokens_BJ[..., None], t, cache)
    return logits_BJ1V[:, :, 0], cache

  stochastic_beam_search(
    step, model.cache, batch_size=1, beam_size=1, samples=2, segment_length=2, temperature=1.0,
    keys_B=keys_of(0, jnp.ones((1, 1), jnp.int32)), max_lengths_B=jnp.array([5]), max_length=5, bos=BOS, eos=EOS,
    alpha=0.0, grow=lambda cache, length: asked.append(length) or cache,
  )  # fmt: skip
  assert asked == [5]
