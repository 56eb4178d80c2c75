"""Masked batches: how many tokens are hidden and by what, that words stay whole, that half of the pairs belong
together, that every sentence comes."""

import itertools

import numpy as np
import pytest

from attention_zoo.data import masking
from attention_zoo.data.corpus import Corpus
from attention_zoo.data.masking import FullSentences, MaskedBatches, SentencePairs, Vocabulary
from attention_zoo.data.tokenizer import BOS, EOS
from attention_zoo.errors import UserError

V, MASK, LENGTH = 1000, 4, 32


def corpus_of(documents):
  """Sentences as `tasks/masked_language_modeling.py` keeps them."""
  items = [item for document in documents for item in (*document, [])]
  flat = np.array([i for item in items for i in (*item, EOS)], np.int32)
  offsets = np.concatenate([[0], np.cumsum([len(item) + 1 for item in items])])
  return Corpus(flat, offsets, flat, offsets)


def documents(number=60, seed=0):
  """Each token says where it stands: no two are alike."""
  rng, at, found = np.random.default_rng(seed), iter(range(5, 10**6)), []
  for _ in range(number):
    found.append([[next(at) for _ in range(rng.integers(1, 12))] for _ in range(rng.integers(1, 9))])
  return found


def test_hidden_tokens_are_within_binomial_bounds():
  ids = np.concatenate([[BOS], np.arange(5, 103), [EOS]]).astype(np.int32)
  counts, places = np.zeros(3), np.zeros(len(ids))
  for seed in range(400):
    found = masking.mask(ids, Vocabulary(V, MASK), 0.15, np.random.default_rng(seed))
    assert len(found.places) == 15 and (found.targets == ids[found.places]).all()
    rest = np.delete(np.arange(len(ids)), found.places)
    assert (found.inputs[rest] == ids[rest]).all()
    put = found.inputs[found.places]
    counts += [(put == MASK).sum(), ((put != MASK) & (put != found.targets)).sum(), (put == found.targets).sum()]
    assert put.min() >= MASK and put.max() < V
    places[found.places] += 1
  n = counts.sum()
  assert n == 6000
  for count, share in zip(counts, (0.8, 0.1 * (1 - 1 / 995), 0.1 * (1 + 1 / 995)), strict=True):
    assert abs(count - n * share) < 4 * np.sqrt(n * share * (1 - share))
  assert not places[[0, -1]].any()
  expected = n / 98
  assert abs(places[1:-1] - expected).max() < 5 * np.sqrt(expected)


def test_whole_words_are_hidden_together():
  goes_on = np.arange(V) % 3 != 0  # words of up to three pieces
  ids = np.concatenate([[BOS], np.arange(6, 60), [EOS]]).astype(np.int32)
  sizes = []
  for seed in range(50):
    found = masking.mask(ids, Vocabulary(V, MASK, goes_on), 0.15, np.random.default_rng(seed))
    hidden = set(found.targets.tolist())
    assert all({i - i % 3 + j for j in range(3)} <= hidden for i in hidden)
    sizes.append(len(hidden))
  assert set(sizes) == {6}  # of at most 8, in threes


def test_of_whole_words_that_are_all_too_long_the_shortest_is_hidden():
  goes_on = np.arange(V) % 10 != 0
  ids = np.array([BOS, *range(10, 20), *range(20, 25), EOS], np.int32)
  chance = np.random.default_rng(0)
  assert masking.mask(ids, Vocabulary(V, MASK, goes_on), 0.15, chance).targets.tolist() == list(range(20, 25))
  found = masking.mask(ids, Vocabulary(V, MASK, goes_on), 0.15, chance, room=4)
  assert found.targets.tolist() == list(range(20, 24))


def test_full_sentences_come_once_and_cross_the_ends_of_documents():
  texts = documents()
  source = FullSentences(corpus_of(texts), LENGTH, seed=1)
  seen = []
  for row in source.plan(0):
    ids, first = source.ids(row)
    assert ids[0] == BOS and ids[-1] == EOS and first == len(ids) <= LENGTH
    seen += [i for i in ids.tolist() if i > EOS]
    assert not ((ids[1:] == EOS) & (ids[:-1] == EOS))[:-1].any()
  assert seen == [i for text in texts for sentence in text for i in sentence]
  starts = {text[0][0] for text in texts}
  crossing = [row for row in map(source.ids, source.plan(0)) if set(row[0][2:].tolist()) & starts]
  assert crossing
  for ids, _ in crossing:
    for at in np.flatnonzero(np.isin(ids, list(starts))):
      assert ids[at - 1] in (BOS, EOS)


@pytest.mark.parametrize("kind", [FullSentences, SentencePairs])
def test_a_sentence_begins_a_word(kind):
  """Also where its first piece looks like one that goes on with a word, as in a vocabulary with spaces before words."""
  texts = documents(number=30)
  goes_on = np.ones(10**4, bool)  # each sentence is one word
  word = {i: (d, s) for d, text in enumerate(texts) for s, sentence in enumerate(text) for i in sentence}
  source = kind(corpus_of(texts), LENGTH, seed=1)
  batches = MaskedBatches(source, Vocabulary(10**4, MASK, goes_on), rows=8, length=LENGTH, rate=0.4, seed=2)
  apart = 0  # neighbours of which one is hidden and the other is not
  for step in range(20):
    batch = batches[step]
    for ids, targets, at in zip(batch["inputs"], batch["masked_targets"], batch["masked"], strict=True):
      hidden = [word[i] for i in targets[at > 0].tolist()]
      ids[at[at > 0]] = targets[at > 0]
      there = [word[i] for i in ids.tolist() if i in word]
      assert all(hidden.count(place) == there.count(place) for place in hidden)
      pairs = [(word[i], word[j]) for i, j in itertools.pairwise(ids.tolist()) if i in word and j in word]
      apart += sum((a in hidden) != (b in hidden) for a, b in pairs)
  assert apart > 20


@pytest.mark.parametrize("kind", [FullSentences, SentencePairs])
def test_of_long_sentences_nothing_is_lost(kind):
  long = list(range(5, 105))
  source = kind(corpus_of([[long, [200, 201]], [[202]], [[203], [204]]]), LENGTH, seed=1)
  rows = [source.ids(row)[0] for row in source.plan(0)]
  assert max(map(len, rows)) <= LENGTH
  assert {*long, *range(200, 205)} <= {i for ids in rows for i in ids.tolist()}
  if kind is FullSentences:
    assert [len(ids) for ids in rows] == [32, 32, 32, 2 + 10 + 2 + 1 + 1 + 1 + 2]


@pytest.mark.parametrize("kind", [FullSentences, SentencePairs])
def test_a_line_that_encodes_to_nothing_ends_no_document(kind):
  texts = documents()
  with_empty = [[text[0], [], *text[1:]] for text in texts]
  corpus = corpus_of(with_empty)
  marks = [mark for text in with_empty for mark in (*[True] * len(text), False)]
  offsets = np.concatenate([[0], np.cumsum([1 + mark for mark in marks])])
  corpus = Corpus(corpus.source_tokens, corpus.source_offsets, np.full(offsets[-1], EOS, np.int32), offsets)
  found, wanted = kind(corpus, LENGTH, seed=1), kind(corpus_of(texts), LENGTH, seed=1)
  assert found.plan(0) == wanted.plan(0)
  for row in found.plan(0):
    np.testing.assert_array_equal(found.ids(row)[0], wanted.ids(row)[0])


def test_half_of_the_pairs_belong_together():
  texts = documents(400)
  place = {i: (d, s) for d, text in enumerate(texts) for s, sentence in enumerate(text) for i in sentence}
  source = SentencePairs(corpus_of(texts), LENGTH, seed=1)
  chosen, of_chance, sizes = [], 0, []
  for row in source.plan(0):
    ids, first = source.ids(row)
    assert ids[0] == BOS and ids[first - 1] == ids[-1] == EOS and len(ids) <= LENGTH
    a, b = ids[1 : first - 1], ids[first:-1]
    sizes.append(len(ids))
    if row.unrelated:
      assert place[a[0]][0] != place[b[0]][0]
    else:
      assert place[b[0]] == (place[a[-1]][0], place[a[-1]][1] + 1)
    single = row.unrelated and row.first[1] - row.first[0] == 1 and row.first[1] in _ends(texts)
    of_chance += not single
    chosen.append(bool(row.unrelated))
  drawn = of_chance
  unrelated = sum(chosen) - (len(chosen) - of_chance)
  assert drawn > 500 and abs(unrelated - drawn / 2) < 4 * np.sqrt(drawn / 4)
  used = np.concatenate([np.arange(*row.first) for row in source.plan(0)])
  assert len(set(used.tolist())) == len(used)  # no sentence is a first segment twice
  assert source.plan(1) != source.plan(0) and source.plan(0) == SentencePairs(corpus_of(texts), LENGTH, 1).plan(0)
  assert np.mean(sizes) > LENGTH / 2
  with pytest.raises(UserError, match="several documents"):
    SentencePairs(corpus_of(texts[:1]), LENGTH, seed=1)


def _ends(texts):
  """Behind which sentences a document ends."""
  found, at = set(), 0
  for text in texts:
    found.add(at + len(text))
    at += len(text) + 1
  return found


@pytest.mark.parametrize("number", [30, 50])
def test_an_epoch_of_more_or_fewer_rows_comes_from_all_documents(number, monkeypatch):
  source = SentencePairs(corpus_of(documents()), LENGTH, 1)
  first = source.plan(0)[:40]
  other = [row._replace(unrelated=i) for i, row in enumerate(source.plan(1)[:number])]
  monkeypatch.setattr(source, "plan", lambda epoch: other if epoch else first)
  batches = MaskedBatches(source, Vocabulary(10**6, MASK), rows=8, length=LENGTH, rate=0.15, seed=2)
  seen = sorted(i for step in range(5, 10) for i in batches[step]["unrelated"].tolist())
  assert seen == [i * number // 40 for i in range(40)]


@pytest.mark.parametrize("kind", [FullSentences, SentencePairs])
def test_batches_are_functions_of_the_step_and_masked_anew(kind):
  source = kind(corpus_of(documents()), LENGTH, 1)
  batches = MaskedBatches(source, Vocabulary(10**6, MASK), rows=8, length=LENGTH, rate=0.15, seed=2)
  (shapes,) = batches.shapes
  whole = batches[3]
  assert {name: x.shape for name, x in whole.items()} == shapes
  assert ("unrelated" in whole) == (kind is SentencePairs)
  parts = [batches.local(3, (part,), 4) for part in range(4)]
  for name, x in whole.items():
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), x)
  real = whole["masked"] > 0
  assert (real.sum(1) == np.maximum(1, np.round(0.15 * (whole["segments"] > 0).sum(1)))).all()
  assert (whole["masked_targets"][real] > EOS).all() and not whole["masked_targets"][~real].any()
  rows = [batches.build([source.plan(0)[0]], [number], 1) for number in (0, 0, batches.rows_per_epoch)]
  np.testing.assert_array_equal(rows[0]["inputs"], rows[1]["inputs"])
  assert (rows[0]["masked"] != rows[2]["masked"]).any()
  order = list(batches.in_order(8))
  assert sum((batch["segments"][:, 0] > 0).sum() for batch in order) == batches.rows_per_epoch


@pytest.mark.parametrize("kind", [FullSentences, SentencePairs])
def test_rows_too_short_for_sentences(kind):
  with pytest.raises(UserError, match="config.data.row_length = 2 leaves no room"):
    kind(corpus_of(documents()), 2, seed=1)


def test_a_split_without_sentences_is_named():
  empty = FullSentences(corpus_of([[]]), LENGTH, 1)
  with pytest.raises(UserError, match="The dev split holds no sentence"):
    MaskedBatches(empty, Vocabulary(10, 4), rows=2, length=LENGTH, rate=0.15, seed=0, split="dev")
