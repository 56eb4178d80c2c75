"""The best checkpoint stays, and training ends where nothing better comes."""

import json
import os

import pytest

from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints
from attention_zoo.training.best import Best, read
from attention_zoo.training.loop import train
from tests.training import toy_task

CHANGES = {"train.best_metric": "loss", "train.eval_every": 2, "train.checkpoint_every": 100, "train.keep": 1}


class Worsening(toy_task.ToyTask):
  """Its dev loss falls until the fourth evaluation and rises after that."""

  def summarize(self, sums):
    found = super().summarize(sums)
    if sums["loss"][1] > 150:  # a batch of training has fewer tokens, and so has the list of names
      return found
    self.evaluations = getattr(self, "evaluations", 0) + (sums["loss"][1] > 1)
    return found | {"loss": abs(self.evaluations - 4) + 1.0}

  def eval_batches(self, split):
    yield from list(super().eval_batches(split))[:1]


def run(workdir, steps, **changes):
  config = toy_task.make_config(**{**CHANGES, "train.log_every": 100, "train.steps": steps, **changes})
  return train(Worsening(config), config, workdir, quiet=True)


def test_the_best_stays_beside_the_newest(tmp_path):
  run(tmp_path, 14)
  best = read(tmp_path)[-1]["step"]
  assert checkpoints.steps(tmp_path) == [best, 14] and best < 14
  assert [entry["metric"] for entry in read(tmp_path)] == ["loss"] * len(read(tmp_path))
  values = [entry["value"] for entry in read(tmp_path)]
  assert values == sorted(values, reverse=True)


def test_patience_ends_training_with_everything_saved(tmp_path):
  state = run(tmp_path, 100, **{"train.patience": 2})
  best = read(tmp_path)[-1]["step"]
  assert int(state.steps) == best + 4 and checkpoints.steps(tmp_path) == [best, best + 4]
  assert int(run(tmp_path, 100, **{"train.patience": 2}).steps) == best + 4  # and again: nothing is left to do


def test_patience_ends_training_at_an_evaluation(tmp_path):
  run(tmp_path, 7)  # the last step, and the best
  assert int(run(tmp_path, 100, **{"train.patience": 2}).steps) == 12 and checkpoints.steps(tmp_path) == [7, 12]


def test_another_figure_begins_anew(tmp_path):
  (tmp_path / "best.json").write_text(json.dumps([{"step": 2, "metric": "loss", "value": 2.1}]))
  train_config = toy_task.make_config(**{"train.best_metric": "perplexity"}).train
  best = Best(tmp_path, train_config, {"perplexity"}, start=6)
  assert best.step is None and best.take(8, {"perplexity": 8.0}) and read(tmp_path)[-1]["step"] == 8


def test_a_figure_that_there_is_not(tmp_path):
  with pytest.raises(UserError, match="best_metric = 'los' is not a figure.*did you mean 'loss'.*perplexity"):
    run(tmp_path, 4, **{"train.best_metric": "los"})
  with pytest.raises(UserError, match="patience needs config.train.best_metric"):
    run(tmp_path, 4, **{"train.best_metric": "", "train.patience": 1})


def test_a_resumed_run_forgets_what_came_after(tmp_path):
  entries = [{"step": 2, "metric": "bleu", "value": 5.0}, {"step": 8, "metric": "bleu", "value": 9.0}]
  (tmp_path / "best.json").write_text(json.dumps(entries))
  train_config = toy_task.make_config(**{"train.best_metric": "bleu", "train.best_mode": "max"}).train
  best = Best(tmp_path, train_config, {"bleu"}, start=6)
  assert best.step == 2 and not best.take(6, {"bleu": 4.0}) and not best.take(6, {"bleu": float("nan")})
  assert best.take(6, {"bleu": 6.0}) and best.step == 6 and read(tmp_path)[-1]["value"] == 6.0
  (tmp_path / "best.json").write_text("[{]")
  with pytest.raises(UserError, match="best.json is damaged"):
    read(tmp_path)


@pytest.mark.parametrize(
  "text",
  [
    '[{"step": 1e999, "metric": "a", "value": 1}]',
    '[{"step": 1, "metric": "a", "value": 1' + "0" * 400 + "}]",
    '[{"step": 1, "metric": ["a"], "value": 1.0}]',
    "[" * 10**5,
    os.mkdir,
    os.mkfifo,
  ],
)
def test_a_list_that_is_none(tmp_path, text):
  path = tmp_path / "best.json"
  path.write_text(text) if isinstance(text, str) else text(path)
  with pytest.raises(UserError, match="best.json"):
    read(tmp_path)
