"""Unknown words of translations, replaced by what the attention looked at."""

import collections
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo import tasks
from attention_zoo.data.tokenizer import EOS, UNK, Tokenizer, train
from attention_zoo.errors import UserError
from attention_zoo.tasks import unknown_words as unknown_words_lib
from attention_zoo.tasks.ensemble import Ensemble
from attention_zoo.tasks.teacher_forcing import read_attention
from attention_zoo.tasks.translation import Translation
from attention_zoo.tasks.unknown_words import UnknownWords, read_dictionary
from attention_zoo.training import loop
from tests.small_run import small_config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  """Without byte fallback: what is not in these sentences is <unk>."""
  path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
  train(["the house of (anna's), is big.", "das haus von anna-anna ist gross!"] * 20, path, vocab_size=48)
  return Tokenizer(path)


def unknown_words(tokenizer, languages=("en", "de"), dictionary="", tokenized=False):
  config = ConfigDict(
    {
      "data": {"languages": languages, "tokenized": tokenized},
      "model": {"name": "gnmt"},
    }
  )
  attachments = lambda: {"decode.unknown_dictionary": dictionary} if dictionary else {}
  task = types.SimpleNamespace(config=config, tokenizer=tokenizer, attachments=attachments)
  return UnknownWords(task, attends=True)


def replaced(tokenizer, source, target, looked_at, **options):
  """looked_at: the words of the source that the unknown pieces of the target looked at, in order."""
  ids, words = tokenizer.encode([target])[0], source.split()
  assert ids.count(UNK) == len(looked_at)
  starts = np.cumsum([0, *map(len, tokenizer.encode(words))])
  texts = set()
  for first in (True, False):  # the first piece of the word, and the last one
    left = iter([words.index(word) for word in looked_at])
    place = lambda word, first=first: starts[word] if first else starts[word + 1] - 1
    positions = [place(next(left)) if i == UNK else 0 for i in ids]
    texts.add(unknown_words(tokenizer, **options).text(source, [*ids, EOS], [*positions, 0]))
  (text,) = texts
  return text


@pytest.mark.parametrize(
  ("source", "target", "looked_at", "wanted"),
  [
    ("the house of Ωμ .", "das haus von Ψ .", ["Ωμ"], "das haus von Ωμ ."),  # words alone
    ("the house of Zürich is big", "das haus von zΨriΨ ist gross", ["Zürich"] * 2, "das haus von Zürich ist gross"),
    ("Zürich's house", "das haus (Ψs)", ["Zürich's"], "das haus (Zürich's)"),  # punctuation around stays
    ("the house, (Ω-Ω)!", "das haus Ψ.", ["(Ω-Ω)!"], "das haus Ω-Ω."),  # and is not taken over
    ("Ω Ψ", "ΨeΩ haus", ["Ω", "Ψ"], "Ω Ψ haus"),  # two words of the source in one of the target
    ("Ω of Ω", "Ψ von Ψ", ["Ω", "Ω"], "Ω von Ω"),
    ("the %", "das Ψ", ["%"], "das %"),  # nothing but a mark
  ],
)
def test_a_word_becomes_the_word_that_was_looked_at(tokenizer, source, target, looked_at, wanted):
  assert replaced(tokenizer, source, target, looked_at) == wanted


def test_a_dictionary_translates_what_it_has(tokenizer, tmp_path):
  (tmp_path / "words").write_text("Ω\tOmega\nΩ\tanother\nZürich\tZurich City\n")
  options = {"dictionary": tmp_path / "words"}
  assert replaced(tokenizer, "Ω, of Zürich", "Ψ von Ψ.", ["Ω,", "Zürich"], **options) == "Omega von Zurich City."
  assert replaced(tokenizer, "the Ψ", "das Ω", ["Ψ"], **options) == "das Ψ"


@pytest.mark.parametrize("line", ["Ω Omega", "Ω\tOmega\tgreat", "\tOmega", "Ω\t ", ""])
def test_a_line_without_a_pair_is_named(tmp_path, line):
  (tmp_path / "words").write_text(f"a\tb\n{line}\nc\td\n")
  with pytest.raises(UserError, match=r"words, line 2: wanted a word, a tab and its translation"):
    read_dictionary(tmp_path / "words")
  with pytest.raises(UserError, match="cannot read .*none"):
    read_dictionary(tmp_path / "none")


def test_spaces_that_a_vocabulary_keeps(tmp_path):
  """With the normalisation "identity" each space of several is a piece."""
  train(["the house of anna is big."] * 20, tmp_path / "kept", vocab_size=48, normalization="identity")
  tokenizer = Tokenizer(tmp_path / "kept")
  source = "  the   house of  Ω"
  position = tokenizer.encode([source])[0].index(UNK)
  ids = tokenizer.encode(["the Ψ"])[0]
  found = unknown_words(tokenizer).text(source, [*ids, EOS], [position] * (len(ids) + 1))
  assert found.split() == ["the", "Ω"]


def test_a_dictionary_has_an_end(tmp_path, monkeypatch):
  monkeypatch.setattr(unknown_words_lib, "MOST_WORDS", 2)
  (tmp_path / "words").write_text("a\tb\n" * 3)
  with pytest.raises(UserError, match="words has more than 2 lines"):
    read_dictionary(tmp_path / "words")


def test_languages_without_spaces(tokenizer):
  """In the target the unknown piece alone is replaced; in the source there are no words to take."""
  assert replaced(tokenizer, "the Ωμ", "hausΨhaus", ["Ωμ"], languages=("en", "zh")) == "hausΩμhaus"
  with pytest.raises(UserError, match="replace_unknown needs words between spaces, which 'zh' does not have"):
    unknown_words(tokenizer, languages=("zh", "en"))
  assert unknown_words(tokenizer, languages=("zh", "en"), tokenized=True)


def untrained(number_files, workdir, **model):
  config = small_config(number_files)
  config.model = ConfigDict(dict(dropout=0.0, **model)).lock()
  config.optimizer.update(schedule="constant", learning_rate=1e-3)
  tasks.validate(config)
  task = Translation(config, workdir)
  task.claim()
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 1, x.shape).astype(np.float32), task.init(jax.random.key(0)).params)
  return task.runner(params, {}, checkpoint="latest", step=0)


def use(run, **options):
  with run.config.unlocked():
    run.config.decode.update(**options)


def test_a_model_with_attention_replaces_them(number_files, tmp_path):
  """Its most usual piece is made <unk>; the text is then what the weights of teacher forcing say."""
  run = untrained(number_files, tmp_path, name="gnmt", d_model=16, d_hidden=16, d_attention=16, num_layers=2)
  source = "forty-nine seven hundred"
  (plain,) = run.hypotheses([source], beam_size=1)[0]
  usual = collections.Counter(i for i in plain.ids if i != EOS).most_common(1)[0][0]
  params = jax.tree.map(np.array, run.params)
  params["output"]["table_VD"][UNK] = 2 * params["output"]["table_VD"][usual]
  run.take(params, {})
  sentences = [source, "", "seven"]
  before = run.hypotheses(sentences, n_best=2)
  (tmp_path / "words").write_text("seven\tSEVEN\n")
  use(run, replace_unknown=True, unknown_dictionary=str(tmp_path / "words"))
  after = run.hypotheses(sentences, n_best=2)
  assert sum(UNK in h.ids for hypotheses in before for h in hypotheses) >= 2
  pieces, changed = run.task.tokenizer.pieces, 0
  for sentence, was, now in zip(sentences, before, after, strict=True):
    words = [word for word in sentence.split() for _ in run.task.tokenizer.encode([word])[0]]
    for old, new in zip(was, now, strict=True):
      assert (new.ids, new.score, new.logprob) == (old.ids, old.score, old.logprob)
      if UNK not in old.ids:
        assert new == old
        continue
      weights_TS = read_attention(run.task, run.params, run.encode([sentence])[0], old.ids).cross[0, 0]
      looked_at = [words[place].replace("seven", "SEVEN") for place in weights_TS[:, :-1].argmax(-1)]
      wanted = [[]]  # the pieces of each word
      for i, piece, word in zip(old.ids, pieces(old.ids), looked_at, strict=True):
        if i != EOS:
          wanted += [[]] if piece.startswith("▁") else []
          wanted[-1].append((i, piece.lstrip("▁"), word))
      meant = lambda parts: " ".join(dict.fromkeys(word for i, _, word in parts if i == UNK))
      wanted = [meant(parts) or "".join(piece for _, piece, _ in parts) for parts in wanted]
      assert new.text.split() == " ".join(wanted).split()
      changed += 1
  assert changed >= 2
  ensemble = Ensemble([run, run])
  assert ensemble.translate(sentences) == [hypotheses[0].text for hypotheses in after]


def test_what_cannot_be_done_is_told_before_anything_is(number_files, tmp_path, monkeypatch):
  run = untrained(number_files, tmp_path, name="sutskever", d_model=16, d_hidden=16, num_layers=1)
  use(run, replace_unknown=True)
  monkeypatch.setattr(run, "_search", None)
  message = "replace_unknown needs an attention to the source, which config.model.name = 'sutskever' does not show"
  with pytest.raises(UserError, match=message):
    run.translate(["seven"])
  with pytest.raises(UserError, match=message):
    loop.train(run.task, run.config, tmp_path, quiet=True)
