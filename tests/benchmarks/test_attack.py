"""The attack on runs: that it finds what it looks for, and, in a few dozen trials, nothing."""

import pathlib

import pytest

from benchmarks import attack


def test_a_few_of_each_kind_find_nothing(tiny_run, tmp_path):
  out = tmp_path / "attack.md"
  code = attack.main(["--quick", f"--run={tiny_run}", f"--out={out}"])
  text = out.read_text()
  assert code == 0 and "0 of 35 trials found a fault" in text, text
  assert all(f"| {kind}" in text for kind in (*attack.KINDS, "nodes", "headers", "exported"))


class Fake:
  """A victim that answers as it is told."""

  usual = {None: "average 40", "latest": "step 40", "30": "step 30"}
  known = {(name, dev): "right" for name in ("average 40", "step 40", "step 30", "step 20") for dev in (False, True)}

  def __init__(self, write="", **reply):
    self.write, self.reply = write, {"outcome": "answered", "digest": "right", "text": "", "memory": 0} | reply

  def ask(self, folder, checkpoint, dev):
    if self.write:
      (pathlib.Path(folder) / self.write).write_text("x")
    return {"from": self.usual[checkpoint]} | self.reply


@pytest.mark.parametrize(
  ("victim", "faults"),
  [
    (Fake(), []),
    (Fake(outcome="refused", text="one line"), []),
    (Fake(outcome="refused", text="two\nlines"), ["traceback"]),
    (Fake(outcome="traceback"), ["traceback"]),
    (Fake(outcome="hang"), ["hang"]),
    (Fake(outcome="died"), ["memory"]),
    (Fake(memory=1 << 31), ["memory"]),
    (Fake(digest="wrong"), ["silent difference"]),
    (Fake(**{"from": "step 20"}), ["silent difference"]),  # another checkpoint, without a word
    (Fake(text="the one before", **{"from": "step 20"}), []),
    (Fake(write="../../outside/x"), ["written outside"]),
    (Fake(write="tokenizer.model"), ["written outside"]),
    (Fake(write="data/x"), []),
  ],
)
def test_it_sees(victim, faults, tiny_run, tmp_path):
  attack.make_outside(tmp_path)
  record = attack.trial(victim, tmp_path, tiny_run, seed=0, kind="metrics.jsonl", number=3)
  assert record["faults"] == faults


def test_a_trial_follows_from_the_seed_and_its_number(tiny_run, tmp_path):
  attack.make_outside(tmp_path)
  what = [attack.trial(Fake(), tmp_path, tiny_run, 1, "average/", number)["what"] for number in (5, 5, 6, 7)]
  assert what[0] == what[1] and len(set(what)) > 1
