import hashlib
import os
import re

import pytest

from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, train
from attention_zoo.errors import UserError
from tests.data.texts import sentences

TEXT = sentences(2000)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request, tmp_path_factory):
  path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
  train(TEXT, path, vocab_size=300, model_type=request.param)
  return Tokenizer(path)


def test_encodes_and_decodes(tokenizer):
  assert tokenizer.vocab_size == 300
  ids = tokenizer.encode(TEXT[:50] + [""])
  assert tokenizer.decode(ids) == TEXT[:50] + [""]
  assert not {PAD, BOS, EOS, UNK} & {i for sentence in ids for i in sentence}
  assert "".join(tokenizer.pieces(ids[0])).replace("\u2581", " ").strip() == TEXT[0]
  assert tokenizer.encode([]) == [] and tokenizer.decode([]) == []


def test_special_ids_vanish_from_the_text_and_unknown_ones_do_not(tokenizer):
  (ids,) = tokenizer.encode([TEXT[0]])
  assert tokenizer.decode([[BOS, *ids, EOS, PAD, PAD]]) == [TEXT[0]]
  assert tokenizer.encode(["ж"])[0][-1] == UNK
  assert tokenizer.pieces([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_training_twice_gives_the_same_bytes(tmp_path, model_type, monkeypatch):
  monkeypatch.setattr("attention_zoo.data.tokenizer.MAX_TRAINING_SENTENCES", 500)  # a random sample
  for name in ("a", "b"):
    train(TEXT, tmp_path / name, vocab_size=300, model_type=model_type)
  assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
  assert Tokenizer(tmp_path / "a").fingerprint == Tokenizer(tmp_path / "b").fingerprint
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "a temporary file was left"


def test_where_it_cannot_be_written_is_told(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot write .*file/m: "):
    train(TEXT, tmp_path / "file" / "m", vocab_size=300)


def test_byte_fallback_spells_what_the_training_text_has_not(tmp_path):
  train(TEXT, tmp_path / "m", vocab_size=600, byte_fallback=True)
  tokenizer = Tokenizer(tmp_path / "m")
  ids = tokenizer.encode(["жük 漢"])
  assert UNK not in ids[0] and tokenizer.decode(ids) == ["жük 漢"]


def test_normalization_is_a_choice(tmp_path):
  for rule in ("identity", "nmt_nfkc"):
    train([*TEXT, "ﬁ  x"], tmp_path / rule, vocab_size=300, normalization=rule)
  decoded = {
    rule: Tokenizer(tmp_path / rule).decode(Tokenizer(tmp_path / rule).encode([" ﬁ  x "]))[0]
    for rule in ("identity", "nmt_nfkc")
  }
  assert decoded == {"identity": " ﬁ  x ", "nmt_nfkc": "fi x"}


def test_digits_can_be_split(tmp_path):
  text = [f"{word} 2021" for word in TEXT]
  for split in (False, True):
    train(text, tmp_path / str(split), vocab_size=300, split_digits=split)
  counts = [len(Tokenizer(tmp_path / str(s)).encode(["2021"])[0]) for s in (False, True)]
  assert counts[0] == 1 and counts[1] >= 4


def test_a_vocabulary_too_large_tells_the_largest_possible(tmp_path):
  with pytest.raises(UserError, match=r"data.vocab_size=50000 is too large") as error:
    train(TEXT, tmp_path / "m", vocab_size=50000, byte_fallback=False)
  largest = int(re.search(r"at most (\d+)", str(error.value))[1])
  train(TEXT, tmp_path / "m", vocab_size=largest)
  assert Tokenizer(tmp_path / "m").vocab_size == largest


def test_a_vocabulary_too_small_tells_what_is_needed(tmp_path):
  with pytest.raises(UserError, match=r"data.vocab_size=10 is too small .* more than (\d+)") as error:
    train(TEXT, tmp_path / "m", vocab_size=10)
  needed = int(re.search(r"more than (\d+)", str(error.value))[1])
  train(TEXT, tmp_path / "m", vocab_size=needed + 1)
  assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(model_type="words"), 'data.tokenizer="words" is unknown'),
    (dict(normalization="lower"), 'data.normalization="lower" is unknown'),
    (dict(sentences=["", ""]), "no text"),
    (dict(sentences=[]), "no text"),
    (dict(sentences=[" ", "\t  ", "\u3000"]), "no text"),
    (dict(sentences=[" ", "\u2003\u3000"], normalization="identity"), "no text"),
  ],
)
def test_wrong_settings_are_told(tmp_path, change, message):
  with pytest.raises(UserError, match=message):
    train(**dict(sentences=TEXT, path=tmp_path / "m", vocab_size=300) | change)


def test_what_goes_wrong_with_the_sentences_is_raised_as_it_is(tmp_path):
  class Broken(list):
    def __iter__(self):
      yield from super().__iter__()
      raise UserError("train.en, line 2001: invalid UTF-8")

  with pytest.raises(UserError, match="^train.en, line 2001: invalid UTF-8$"):
    train(Broken(TEXT), tmp_path / "m", vocab_size=300)
  assert not list(tmp_path.iterdir())


def test_sentences_that_can_be_read_only_once_are_refused(tmp_path):
  with pytest.raises(TypeError, match="read twice"):
    train(iter(TEXT), tmp_path / "m", vocab_size=300)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
def test_every_character_of_the_training_text_survives(tmp_path, model_type, normalization, caplog, monkeypatch):
  long = " ".join(TEXT[:200]) + " Ω漢"
  unbroken = "x" * 70_000 + "Ж"
  literal = ["<unk> a </s> b <s> c <pad>", "＜unk＞ \u2585 ¿", "e\u0301 ﬁ"]
  monkeypatch.setattr("attention_zoo.data.tokenizer.MAX_TRAINING_SENTENCES", 1500)  # of them, some are not sampled
  extra = [*literal, long, unbroken, *(f"{chr(i)} {i}" for i in range(0x4E00, 0x4E20))]
  settings = dict(vocab_size=400, model_type=model_type, normalization=normalization)
  train(TEXT + extra, tmp_path / "m", **settings)
  tokenizer = Tokenizer(tmp_path / "m")
  for text in extra:
    text = text.replace("\u2585", "")
    ids = tokenizer.encode([text])[0]
    assert not {PAD, BOS, EOS, UNK} & set(ids), text[-20:]
    if normalization == "identity":
      assert tokenizer.decode([ids]) == [text]
  assert ["cannot hold 1 characters of the training text: U+2585" in r.getMessage() for r in caplog.records] == [True]


@pytest.mark.parametrize("between", [" ", "\u2585", ""])
def test_long_lines_are_learnt_from(tmp_path, between):
  """What SentencePiece would leave out as a whole is cut into parts: over 4,192 bytes, or with its own "unknown"."""
  train([*TEXT, between.join(["xylophone"] * 1000)], tmp_path / "m", vocab_size=400)
  assert len(Tokenizer(tmp_path / "m").encode(["xylophone"])[0]) <= 3


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_literal_control_symbol_is_text(tmp_path, model_type):
  """SentencePiece learns nothing of it: the characters <, > and / stand nowhere else."""
  text = "a<s>b</s>c<unk>d<pad>"
  train([*TEXT, text], tmp_path / "m", vocab_size=300, model_type=model_type)
  tokenizer = Tokenizer(tmp_path / "m")
  (ids,) = tokenizer.encode([text])
  assert not {PAD, BOS, EOS, UNK} & set(ids) and tokenizer.decode([ids]) == [text]


@pytest.mark.parametrize("text", ["a\u0001b\u200bc\u2581d", "a\u0001 \u200b \u2581"])
def test_what_normalization_drops_is_told(tmp_path, text, caplog):
  train([*TEXT, text, "ﬁ e\u0301\u3000x\t"], tmp_path / "m", vocab_size=300)
  (record,) = caplog.records
  assert record.getMessage().endswith("cannot hold 3 characters of the training text: U+0001, U+200B, U+2581")


def test_a_tokenizer_that_is_not_as_it_was_written_is_told(tmp_path):
  train(TEXT, tmp_path / "m", vocab_size=300)
  content = (tmp_path / "m").read_bytes()
  digest = hashlib.sha256(content).hexdigest()
  assert Tokenizer(tmp_path / "m", digest).fingerprint == digest
  for damaged in (content[:-1], bytes([content[0]]) + bytes([content[1] ^ 1]) + content[2:]):
    (tmp_path / "m").write_bytes(damaged)
    with pytest.raises(UserError, match=r"m is not as it was written .*checksum differs"):
      Tokenizer(tmp_path / "m", digest)


def test_what_is_no_file_of_a_tokenizers_size_is_not_read(tmp_path):
  os.mkfifo(tmp_path / "fifo")
  (tmp_path / "zero").symlink_to("/dev/zero")
  with open(tmp_path / "large", "wb") as file:
    file.truncate(100 << 20)
  for name, message in dict(fifo="not a regular file", zero="not a regular file", large="more than").items():
    with pytest.raises(UserError, match=f"{name} (is|has) {message}"):
      Tokenizer(tmp_path / name)


def test_what_is_no_tokenizer_is_told(tmp_path):
  with pytest.raises(UserError, match="no tokenizer at"):
    Tokenizer(tmp_path / "m")
  (tmp_path / "m").write_bytes(b"hello")
  with pytest.raises(UserError, match="m is not a SentencePiece model"):
    Tokenizer(tmp_path / "m")
