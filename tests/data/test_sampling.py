import itertools

import numpy as np
import pytest

from attention_zoo.data.batches import BucketedBatches, PackedBatches, eval_batches, prefetch
from attention_zoo.data.corpus import build_corpus
from attention_zoo.data.sampling import Sampler
from attention_zoo.data.tokenizer import EOS, UNK, Tokenizer, train
from tests.data.texts import Pairs, sentences

PAIRS = list(zip(sentences(300, seed=1), sentences(300, seed=2), strict=True))
AMOUNT = {"bpe": 0.1, "unigram": 0.3}
ROW = 64


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def made(request, tmp_path_factory):
  """(corpus, tokenizer, makes batches of a kind)."""
  directory = tmp_path_factory.mktemp("sampling")
  train([s for pair in PAIRS for s in pair], directory / "m", vocab_size=300, model_type=request.param)
  tokenizer = Tokenizer(directory / "m")
  corpus = build_corpus(Pairs(PAIRS), "train", tokenizer, max_length=60, cache_dir=directory)

  def make(kind, seed=3, amount=AMOUNT[request.param]):
    sampler = Sampler(tokenizer, amount, seed)
    return kind(corpus, batch_tokens=512, row_length=ROW, seed=seed, row_multiple=4, sampler=sampler)

  return corpus, tokenizer, make


def unpack(batch):
  """The (source, target) ids of each sentence pair, EOS at their ends."""
  for b in range(len(batch["source"])):
    for segment in range(1, batch["target_segments"][b].max() + 1):
      yield tuple(
        batch[name][b][batch[f"{side}_segments"][b] == segment].tolist()
        for name, side in (("source", "source"), ("targets", "target"))
      )


def an_epoch(batches):
  steps = -(-batches.rows_per_epoch // 8) if isinstance(batches, PackedBatches) else batches.batches_per_epoch
  return [pair for step in range(steps) for pair in unpack(batches[step])]


@pytest.mark.parametrize("kind", [PackedBatches, BucketedBatches])
def test_an_epoch_says_the_same_in_other_pieces(made, kind):
  corpus, tokenizer, make = made
  batches = make(kind)
  pairs = an_epoch(batches)
  texts = {tuple(tokenizer.decode([ids[:-1] for ids in pair])) for pair in pairs}
  assert texts == set(PAIRS) and all(ids[-1] == EOS and EOS not in ids[:-1] for pair in pairs for ids in pair)
  plain = {(*ids, EOS) for side in zip(*PAIRS, strict=True) for ids in tokenizer.encode(list(side))}
  rows = np.arange(len(corpus))
  free = batches._sampler.sample(corpus, rows, rows, rows * 0, (10**6, 10**6))
  drawn = [free.source_tokens[a:b].tolist() for a, b in itertools.pairwise(free.source_offsets)]
  expected = np.mean([tuple(ids) not in plain for ids in drawn])
  found = np.mean([tuple(ids) not in plain for ids, _ in pairs])
  assert 0.8 * expected < found, "too many are left as they are: rows are too short for them"


@pytest.mark.parametrize("kind", [PackedBatches, BucketedBatches])
def test_batches_are_a_function_of_seed_and_step(made, kind):
  _, _, make = made
  batches, steps = make(kind), (0, 1, 40, 7, 0)
  first = [batches[step] for step in steps]
  again = make(kind)
  ahead = prefetch(make(kind), 6)
  next(ahead)
  seventh = next(ahead)
  ahead.close()
  for step, batch in reversed(list(zip(steps, first, strict=True))):  # in another order, by another object
    for name, values in again[step].items():
      assert (values == batch[name]).all(), (step, name)
  assert all((seventh[name] == first[3][name]).all() for name in seventh)
  parts = [batches.local(7, (i,), 4) for i in range(4)]  # by other processes
  assert all((np.concatenate([part[name] for part in parts]) == first[3][name]).all() for name in first[3])
  assert make(kind, seed=4)[0]["targets"].tolist() != first[0]["targets"].tolist()


def test_each_epoch_has_other_pieces(made):
  corpus, tokenizer, _ = made
  sampler = Sampler(tokenizer, 0.3, 0)
  drawn = [sampler.sample(corpus, np.arange(20), np.zeros(20, int), [epoch], (10**6, 10**6)) for epoch in (0, 1, 0)]
  assert drawn[0].source_tokens.tolist() == drawn[2].source_tokens.tolist() != drawn[1].source_tokens.tolist()


def test_what_does_not_fit_keeps_its_plain_pieces(made):
  corpus, tokenizer, _ = made
  room = int(corpus.source_offsets[20]), int(corpus.target_offsets[20])
  found = Sampler(tokenizer, 0.1, 0).sample(corpus, np.arange(20), np.zeros(20, int), [0], room)
  assert len(found.source_tokens) <= room[0] and len(found.target_tokens) <= room[1] and len(found) == 20


def test_unknown_characters_keep_their_sentence_as_it_is(made, tmp_path):
  _, tokenizer, _ = made
  corpus = build_corpus(Pairs([("жaaa", "a ж b")]), "train", tokenizer, max_length=60, cache_dir=tmp_path)
  assert UNK in corpus.source_tokens
  found = Sampler(tokenizer, 0.5, 0).sample(corpus, np.arange(1), np.zeros(1, int), [0], (99, 99))
  assert found.source_tokens.tolist() == corpus.source_tokens.tolist()
  assert found.target_tokens.tolist() == corpus.target_tokens.tolist()


def test_evaluation_is_never_sampled(made):
  corpus, tokenizer, _ = made
  (batch, *_) = eval_batches(corpus, rows=200, row_length=ROW)
  assert {tuple(map(tuple, pair)) for pair in unpack(batch)} <= {
    tuple(tuple([*tokenizer.encode([text])[0], EOS]) for text in pair) for pair in PAIRS
  }
