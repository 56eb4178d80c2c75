"""BERT's vocabulary: learnt, read, cut, joined again; beside a loop over all pieces, and beside transformers."""

import itertools
from collections import Counter

import numpy as np
import pytest

from attention_zoo.data import byte_bpe, identity, merging, wordpiece
from attention_zoo.data.tokenizer import BOS, EOS, UNK
from attention_zoo.data.wordpiece import MASK
from attention_zoo.errors import UserError

TEXTS = [
  "The quick brown fox doesn't jump over the lazy dog's naïve café, does it?", "It isn't ... 3.14% of A-Z_0-9!",
  "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Η γρήγορη καφέ αλεπού ΠΗΔΆ πάνω από ΤΟΝ ΣΚΎΛΟΣ.",
  "敏捷的棕色狐狸跳过了懒狗。漢字かな交じり文のテスト", "いろはにほへと ちりぬるを カタカナ ガギグゲゴ",
  "다람쥐 헌 쳇바퀴에 타고파",
  "نص حكيم له سر قاطع وذو شأن عظيم، مكتوب", "עטלף אבק נס דרך מזגן שהתפוצץ כי חם", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
  "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "Đây là tiếng Việt có dấu: ờ, ễ, ạ", "İstanbul'da ÇOK GÜZEL ßtraße ﬁn Ǆ",
  "zero\u200bwidth \u00a0space\ttab\nline\u2028sep \ufffd\u0000 control\u0007",
  "\U0001f642\U0001f642 ½ ² Ⅷ ``quotes'' <a@b.c> $5+^`|~",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
  return wordpiece.learn(TEXTS * 3, vocab_size=500)


def cut(word, pieces):
  """The definition: the longest piece that the rest of the word begins with."""
  found = []
  while word:
    fit = [p for p in pieces if word.startswith(p.removeprefix("##")) and p.startswith("##") == bool(found)]
    if not fit:
      return ["[UNK]"]
    found.append(max(fit, key=lambda p: len(p.removeprefix("##"))))
    word = word[len(found[-1].removeprefix("##")) :]
  return found


def test_words_are_cut_into_the_longest_pieces(model):
  tokenizer = wordpiece.parse(model, "x")
  assert tokenizer.vocab_size == 500 and tokenizer.pieces([0, 1, 2, 3, 4]) == [*wordpiece.SPECIAL.values()]
  pieces = [piece for piece in tokenizer.raw if piece not in wordpiece.SPECIAL.values() and piece != "##"]
  for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
    words = wordpiece.words(text, True, False)
    assert tokenizer.pieces(ids) == [piece for word in words for piece in cut(word, pieces)]
    assert UNK not in ids  # every character was in the training text
    assert tokenizer.decode([[BOS, *ids, EOS]]) == [" ".join(words)]
    assert (tokenizer.goes_on[ids] == [piece.startswith("##") for piece in tokenizer.pieces(ids)]).all()


def test_what_a_word_is():
  assert wordpiece.words("It's naïve,  x\u200by\u00a0漢字ab\n-", True, False) == [
    "it", "'", "s", "naive", ",", "xy", "漢", "字", "ab", "-"
  ]  # fmt: skip
  assert wordpiece.words("It's naïve", False, True) == ["It", "'", "s", "naïve"]
  every = "".join(map(chr, range(32, 127)))
  for text in (every, " ".join(every), "A b"):  # the short way for ASCII and the long one
    for lower in (True, False):
      assert wordpiece.words(text, lower, not lower) == wordpiece.words(text + "\u200b", lower, not lower)
  tokenizer = wordpiece.parse(wordpiece.dump([*wordpiece.SPECIAL.values(), "a", "##b"], True), "x")
  assert tokenizer.encode(["ab AB abc " + "a" * 101 + " [MASK]"]) == [[5, 6, 5, 6, UNK, UNK, UNK, UNK, UNK]]
  assert tokenizer.unknown("ab abc") == ["abc"] and tokenizer.mask == MASK


def test_learning_is_a_function_of_the_texts(model, tmp_path):
  assert wordpiece.learn(TEXTS * 3, vocab_size=500) == model
  path = tmp_path / "tokenizer.model"
  path.write_bytes(model)
  assert identity.parse(model, path).fingerprint == wordpiece.parse(model, path).fingerprint
  for size, message in ((100_000, "too large .* set it to"), (20, "too small")):
    with pytest.raises(UserError, match=message):
      wordpiece.learn(TEXTS, vocab_size=size)
  with pytest.raises(UserError, match="no text"):
    wordpiece.learn([" "], vocab_size=20)


def test_a_published_file_is_read_with_the_special_pieces_first(tmp_path):
  pieces, ids = wordpiece.read(b"[PAD]\n[unused0]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n", "vocab.txt")
  assert pieces == ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[unused0]", "a", "##b"]
  assert ids.tolist() == [0, 3, 4, 2, 5, 1, 6, 7]
  with pytest.raises(UserError, match=r"vocab.txt is not a vocabulary of BERT.*no \[CLS\]"):
    wordpiece.read(b"[PAD]\n[UNK]\n[SEP]\n[MASK]\n", "vocab.txt")
  with pytest.raises(UserError, match="all differ"):
    wordpiece.read(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na", "vocab.txt")


def test_merges_are_those_of_the_plain_algorithm():
  """Sennrich et al.'s algorithm 1: count all pairs anew for each merge."""
  rng = np.random.default_rng(0)
  words = Counter(tuple(rng.choice(list("abcd"), rng.integers(1, 9))) for _ in range(120))
  left, expected = [(list(word), count) for word, count in words.items()], []
  while len(expected) < 25:
    pairs = Counter()
    for word, count in left:
      for pair in itertools.pairwise(word):
        pairs[pair] += count
    best = min((-count, pair) for pair, count in pairs.items())[1]
    expected.append(best)
    left = [(merging._joined(word, best, "".join(best)), count) for word, count in left]
  assert merging.learn(words, 25) == expected
  assert merging.learn({("a", "b"): 1}, 5) == [] and merging.learn({("a", "b", "a", "b"): 1}, 5) == [("a", "b")]


def test_bytes_are_learnt_and_any_text_comes_back():
  model = byte_bpe.learn(TEXTS * 3, vocab_size=400)
  tokenizer = byte_bpe.parse(model, "x")
  assert tokenizer.vocab_size == 400 and tokenizer.mask == 4 and tokenizer.mask_piece == "<mask>"
  for text in [*TEXTS, "öäü 龍 new <mask>"]:
    (ids,) = tokenizer.encode([text])
    assert UNK not in ids and MASK not in ids and tokenizer.decode([ids]) == [text]
  (ids,) = tokenizer.encode(["the fox the"])
  assert (~tokenizer.goes_on[ids]).sum() == 2  # " fox", " the"; the first word has no space
  with pytest.raises(UserError, match="bytes alone need 261"):
    byte_bpe.learn(TEXTS, vocab_size=260)


@pytest.mark.parametrize("lower", [True, False])
def test_transformers_cuts_alike(tmp_path, lower):
  transformers = pytest.importorskip("transformers")
  model = wordpiece.learn(TEXTS * 3, vocab_size=500, lower=lower)
  tokenizer = wordpiece.parse(model, "x")
  path = tmp_path / "vocab.txt"
  path.write_text("".join(f"{piece}\n" for piece in tokenizer.raw), encoding="utf-8")
  peer = transformers.BertTokenizer(str(path), do_lower_case=lower)
  for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
    assert tokenizer.pieces(ids) == peer.tokenize(text), text
