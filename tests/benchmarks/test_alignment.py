"""Alignments are counted as they should be, and the command writes its table and pictures, or says why not."""

import json

import numpy as np
import pytest

from attention_zoo import tasks
from attention_zoo.configs.seq2seq import bahdanau_phrasebook, sutskever_phrasebook
from attention_zoo.data.phrasebook import Slot
from attention_zoo.training import loop
from benchmarks import alignment

SOURCE, TARGET = "The meeting ends on Monday, May 3, 2021.", "Die Besprechung endet am Montag, dem 3. Mai 2021."


def slot(kind, ours, theirs):
  place = lambda text, part: (text.index(part), text.index(part) + len(part))
  return Slot(kind, place(SOURCE, ours), place(TARGET, theirs))


SLOTS = (
  slot("event", "The meeting", "Die Besprechung"),
  slot("weekday", "Monday", "Montag"),
  slot("date", "May 3, 2021", "3. Mai 2021"),
)


def test_links_of_a_pair():
  sure, possible, kinds = alignment.links(SOURCE, TARGET, SLOTS)
  # Words: 4 Monday, 5 May 6 3, 7 2021. and 4 Montag, 6 3. 7 Mai 8 2021.
  assert sure == {(4, 4), (6, 6), (8, 7), (7, 5)}
  events = {(t, s) for t in (0, 1) for s in (0, 1)}
  dates = {(t, s) for t in (6, 7, 8) for s in (5, 6, 7)}
  assert possible == events | dates | {(4, 4)}
  assert kinds == {0: "event", 1: "event", 4: "weekday", 6: "date", 7: "date", 8: "date"}


def test_pieces_make_words():
  source, target = ["▁an", "s", "wer", "▁", "4", "2", "</s>"], ["▁a", "▁b", "c", "</s>"]
  assert alignment.words_of(source) == ["answer", "42", "</s>"]
  assert alignment.words_of(target) == ["a", "bc", "</s>"]
  weights = np.arange(28).reshape(4, 7).astype(float)
  found = alignment.of_words(weights, target, source)
  np.testing.assert_allclose(found[0], [0 + 1 + 2, 3 + 4 + 5, 6])
  np.testing.assert_allclose(found[1], [(7 + 8 + 9 + 14 + 15 + 16) / 2, (10 + 11 + 12 + 17 + 18 + 19) / 2, 33 / 2])


class Run:
  """Looks where it is told, by words; every word is a piece."""

  def __init__(self, look):
    self.look = look

  def soft_align(self, sources, targets):
    for source, target in zip(sources, targets, strict=True):
      ours, theirs = ([f"▁{word}" for word in text.split()] + ["</s>"] for text in (source, target))
      yield ours, theirs, np.eye(len(ours))[self.look]


def test_what_a_look_scores():
  # Rows: Die Besprechung endet am Montag, dem 3. Mai 2021. </s>
  right = [0, 1, 2, 3, 4, 3, 6, 5, 7, 8]
  found = alignment.measure(Run(right), [(SOURCE, TARGET, SLOTS)])["all"]
  assert found == {"words": 6, "sure links": 4, "accuracy": 1.0, "sure": 1.0, "error rate": 0.0}
  # "3." looks at "May": possible and not sure. "Montag" looks at "on". What "endet" and "am" look at does not count.
  wrong = [0, 1, 7, 7, 3, 3, 5, 5, 7, 8]
  found = alignment.measure(Run(wrong), [(SOURCE, TARGET, SLOTS)])
  assert found["all"]["accuracy"] == 5 / 6 and found["all"]["sure"] == 2 / 4
  assert found["all"]["error rate"] == pytest.approx(1 - (2 + 5) / (6 + 4))
  assert found["by kind"]["weekday"]["accuracy"] == 0 and found["by kind"]["event"]["sure"] is None


def test_words_that_the_vocabulary_cuts_otherwise_are_left_out():
  class Cut(Run):
    def soft_align(self, sources, targets):
      return [(["▁a", "</s>"], ["▁b", "</s>"], np.eye(2))]

  found = alignment.measure(Cut([]), [(SOURCE, TARGET, SLOTS)])
  assert (found["pairs"], found["skipped"], found["all"]["accuracy"]) == (0, 1, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(a run with attention, one without), a few steps each, on other text than the phrasebook: a line of it."""
  folder, runs = tmp_path_factory.mktemp("alignment"), []
  pairs = [(SOURCE, TARGET), ("The meeting starts on May 4, 2022.", "Die Besprechung beginnt am 4. Mai 2022.")] * 20
  for split in ("train", "dev", "test"):
    for side, language in enumerate(("en", "de")):
      (folder / f"{split}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
  for made in (bahdanau_phrasebook, sutskever_phrasebook):
    config = made.get_config()
    sizes = dict(d_model=8, d_hidden=8) | ({"d_attention": 8, "d_maxout": 8} if made is bahdanau_phrasebook else {})
    config.model.update(**sizes)
    config.data.update(
      source="text", dir=str(folder), vocab_size=90, batch_tokens=512, row_length=64, max_length=60, test_split="test"
    )
    config.train.update(steps=2, eval_every=2, checkpoint_every=2, log_every=2, dev_samples=0)
    workdir = folder / config.model.name
    loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
    runs.append(workdir)
  return runs


def test_the_command_writes_table_and_pictures(trained, tmp_path, monkeypatch, capsys):
  from attention_zoo.data import phrasebook

  monkeypatch.setattr(phrasebook, "aligned", lambda *languages: iter([(SOURCE, TARGET, SLOTS)] * 3))
  alignment.main([f"--run={trained[0]}", f"--out={tmp_path}", "--pairs=2"])
  found = json.loads((tmp_path / "alignment.json").read_text())
  assert found["pairs"] == 2 and found["all"]["words"] == 12 and found["model"] == "bahdanau"
  assert found["pictures"]["date"]["target"] == [*TARGET.split(), "</s>"]
  np.testing.assert_allclose(np.sum(found["pictures"]["lecture"]["weights"], 1), 1, rtol=1e-4)
  text = (tmp_path / "alignment.md").read_text()
  assert text == alignment.page(found) and "never saw the pair's languages together" in text
  assert "| all values | 12 |" in capsys.readouterr().out
  for name in ("date", "lecture"):
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_is_that_of_the_recorded_figures():
  folder = alignment.common.RESULTS / "alignment"
  known = json.loads((folder / "alignment.json").read_text())
  assert (folder / "alignment.md").read_text() == alignment.page(known)


def test_what_cannot_be_aligned_is_told(trained, tmp_path, capsys):
  for options, message in (
    ([f"--run={trained[1]}"], "config.model.name = 'sutskever' has no attention to its source"),
    ([f"--run={tmp_path / 'none'}"], "none"),
    ([f"--run={trained[0]}", "--pairs=0"], "--pairs must be at least 1, not 0"),
    ([f"--run={trained[0]}", "--checkpoint=7"], "7"),
  ):
    with pytest.raises(SystemExit) as ended:
      alignment.main([*options, f"--out={tmp_path / 'out'}"])
    assert ended.value.code == 2 and message in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
