"""Files as the tools write them, whole and damaged."""

import gzip
import tracemalloc

import numpy as np
import pytest

from attention_zoo.data import word_vectors
from attention_zoo.errors import UserError

D = 4
WORDS = ["the", "bus", "Paris", ". . .", "naïve"]
VECTORS = np.random.default_rng(0).normal(0, 1, (len(WORDS), D)).astype(np.float32)


def lines(end=""):
  """Numbers as text that reads back to the same float32."""
  return [f"{word} {' '.join(map(str, vector.tolist()))}{end}\n" for word, vector in zip(WORDS, VECTORS, strict=True)]


def glove():
  return "".join(lines()).encode()


def word2vec(end=" "):
  return f"{len(WORDS)} {D}\n".encode() + "".join(lines(end)).encode()


def binary(newline=b"\n"):
  body = b"".join(w.encode() + b" " + v.astype("<f4").tobytes() + newline for w, v in zip(WORDS, VECTORS, strict=True))
  return f"{len(WORDS)} {D}\n".encode() + body.replace(b". . .", b".._")  # a word has no space there


FILES = {
  "glove(path={!r})": glove,
  "word2vec(path={!r})": word2vec,
  "fasttext(path={!r})": lambda: word2vec(""),
  "word2vec(path={!r}, binary=True)": binary,
  "word2vec(binary=True, path={!r})": lambda: binary(b""),
}


def opened(tmp_path, text, content, name="vectors"):
  path = tmp_path / name
  path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
  return word_vectors.make(text.format(str(path)))


@pytest.mark.parametrize("name", ["vectors", "vectors.gz"])
@pytest.mark.parametrize("text", FILES)
def test_every_format(tmp_path, text, name):
  file = opened(tmp_path, text, FILES[text](), name)
  wanted = ["bus", "lorry", "naïve", "the", "The", "paris"]
  table, found = word_vectors.select(file, wanted, D)
  assert found.tolist() == [True, False, True, True, True, False]  # "The" as "the"; "paris" is not "Paris"
  np.testing.assert_array_equal(table, [VECTORS[1], [0] * D, VECTORS[4], VECTORS[0], VECTORS[0], [0] * D])
  assert len(file.fingerprint()) == 64
  if "binary" not in text:
    assert word_vectors.select(file, [". . ."], D).found_V.all()


def test_a_word_itself_comes_before_its_lower_case_and_the_first_entry_before_others(tmp_path):
  content = b"the 1\nThe 2\nthe 3\nTHE 4\n"
  for order in (content, b"The 2\nthe 1\nTHE 4\nthe 3\n"):
    file = opened(tmp_path, "glove(path={!r})", order)
    assert word_vectors.select(file, ["The", "the", "tHe", "THE"], 1).table_VD[:, 0].tolist() == [2, 1, 1, 4]
  file = opened(tmp_path, "glove(path={!r}, fold=False)", content)
  assert word_vectors.select(file, ["tHe", "the"], 1).found_V.tolist() == [False, True]


HUGE = b"999999999999999999 300\n"
BAD = [
  ("glove(path={!r})", lambda: glove()[:-1], "line 5 has no end: the file is cut off"),
  ("glove(path={!r})", lambda: glove()[:-30] + b"\n", "line 5 has . numbers, not 4: the file is cut off or damaged"),
  ("glove(path={!r})", lambda: b"", "is empty"),
  ("glove(path={!r})", lambda: b"bus 1 2\n", "has vectors of 2 numbers, and the model's words have 4"),
  ("glove(path={!r})", lambda: glove() + b"tram 1 2 3 x\n", "line 6: the vector of 'tram' is not all numbers"),
  ("glove(path={!r})", lambda: glove() + b"tram 1 2 3 nan\n", "line 6: the vector of 'tram' has a number that"),
  ("glove(path={!r})", lambda: b"a" * (1 << 21), "line 1 is longer than 1,048,576 bytes"),
  ("word2vec(path={!r})", glove, "line 1 is '.*', not the numbers of words and of each vector: a file of GloVe"),
  ("word2vec(path={!r})", lambda: word2vec()[:-30], "line 6 has no end: the file is cut off"),
  ("word2vec(path={!r})", lambda: b"\n".join(word2vec().split(b"\n")[:5]) + b"\n", "ends behind line 5, and"),
  ("word2vec(path={!r})", lambda: b"6 4\n" + glove(), "ends behind line 6, and line 1 says 6 words: the file is"),
  ("word2vec(path={!r})", lambda: b"4 4\n" + glove(), "line 6: line 1 says 4 words, and there are more"),
  ("fasttext(path={!r})", lambda: HUGE + glove(), "line 1 is .*, not the numbers"),
  ("fasttext(path={!r})", lambda: b"99999999999 4\n" + glove(), "says 99,999,999,999 words of 4 numbers: that is no"),
  ("fasttext(path={!r})", lambda: b"5 99999999999\n" + glove(), "says 5 words of 99,999,999,999 numbers: that is no"),
  ("fasttext(path={!r})", lambda: b"-5 4\n" + glove(), "line 1 is '-5 4"),
  ("word2vec(path={!r}, binary=True)", lambda: binary()[:-3], "ends at byte .*within the vector of word 5 of 5"),
  ("word2vec(path={!r}, binary=True)", lambda: binary()[:6], "ends at byte 6, before word 1 of 5: the file is cut off"),
  ("word2vec(path={!r}, binary=True)", lambda: binary() + b"more", "says 5 words, and there is more"),
  ("word2vec(path={!r}, binary=True)", lambda: b"x" * 200, "byte 0: line 1 is longer than 100 bytes"),
  ("word2vec(path={!r}, binary=True)", lambda: b"900000000 4\nbus " + b"\0" * 16, "before word 2 of 900,000,000"),
  ("word2vec(path={!r}, binary=True)", lambda: b"1 4\n" + b"x" * 20000, "byte 4: word 1 of 1 is longer than 10,000"),
  ("word2vec(path={!r}, binary=True)", lambda: b"1 4\ntram " + b"\xff" * 16, "byte 9: the vector of 'tram'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "message"), BAD)
def test_bad_files_are_told(tmp_path, text, content, message):
  file = opened(tmp_path, text, content())
  with pytest.raises(UserError, match=f"(?s){message}"):
    word_vectors.select(file, ["bus", "tram"], D)


def test_no_word_at_all_and_bad_names_are_told(tmp_path):
  with pytest.raises(UserError, match="has a vector for none of the vocabulary's 1 words"):
    word_vectors.select(opened(tmp_path, "glove(path={!r})", glove()), ["Bus-Bahnhof"], D)
  with pytest.raises(UserError, match=r"config.data.word_vectors: there is no format of word vectors 'golve'.*'glove'"):
    word_vectors.make("golve(path='x')")
  with pytest.raises(UserError, match="glove needs the option path"):
    word_vectors.make("glove")


@pytest.mark.parametrize("form", ["text", "binary"])
def test_memory_is_bounded(tmp_path, form):
  """A file of 12 MB, of which three words are wanted."""
  n, width = 30_000, 100
  with open(tmp_path / "big", "wb") as file:
    file.write(f"{n} {width}\n".encode())
    numbers = np.ones(width, "<f4").tobytes() if form == "binary" else b" ".join([b"1.5"] * width)
    for i in range(n):
      file.write(b"word%d " % i + numbers + b"\n")
  big = word_vectors.make(f"word2vec(path={str(tmp_path / 'big')!r}, binary={form == 'binary'})")
  tracemalloc.start()
  found = word_vectors.select(big, ["word7", "word29999", "no"], width)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found.found_V.tolist() == [True, True, False] and peak < 6 << 20
