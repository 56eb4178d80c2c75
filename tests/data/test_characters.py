import pytest

from attention_zoo.data import characters
from attention_zoo.data.tokenizer import BOS, EOS, UNK
from attention_zoo.errors import UserError


def test_characters_round_trip_and_unknown_ones_are_named():
  model = characters.learn(["to be\n", "or not"], vocab_size=4 + 8)
  tokenizer = characters.parse(model, "x")
  assert tokenizer.vocab_size == 12
  ids = tokenizer.encode(["not to be\n", "nöt"])
  assert tokenizer.decode(ids)[0] == "not to be\n" and ids[1][1] == UNK and tokenizer.unknown("nöt ß") == ["ß", "ö"]
  assert tokenizer.pieces([BOS, *ids[0][:5], EOS]) == ["<s>", "n", "o", "t", "▁", "t", "</s>"]
  assert characters.learn(["or not", "to be\n"], vocab_size=12) == model


def test_bytes_round_trip():
  tokenizer = characters.parse(characters.learn_bytes(vocab_size=260), "x")
  (ids,) = tokenizer.encode(["é"])
  assert len(ids) == 2 and tokenizer.decode([ids, ids[:1]]) == ["é", "\ufffd"]
  assert tokenizer.pieces([EOS, ids[0]]) == ["</s>", "<0xC3>"]


def test_sizes_that_are_not_the_texts():
  with pytest.raises(UserError, match="has 3 different characters.*set it to 7"):
    characters.learn(["abc"], vocab_size=8)
  with pytest.raises(UserError, match="bytes need 260"):
    characters.learn_bytes(vocab_size=256)
  with pytest.raises(UserError, match="no text"):
    characters.learn([], vocab_size=8)


@pytest.mark.parametrize("model", [b"{", b'{"characters": "aa"}', b'{"characters": 3}', b'{"letters": "ab"}', b"[" * 9])
def test_damaged_files(model):
  if model.startswith(b"["):
    assert characters.parse(model, "x") is None
    return
  with pytest.raises(UserError, match="path is not a vocabulary of characters"):
    characters.parse(model, "path")
