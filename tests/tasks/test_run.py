"""What all runs share: a card, a face for notebooks, completion, compiling once, threads."""

import json
import threading

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo.errors import UserError
from attention_zoo.exchange import folder
from attention_zoo.tasks.language_model import Attention as TextAttention
from attention_zoo.tasks.teacher_forcing import Attention
from tests.compilations import compilations

SENTENCES = ["seven", "one hundred and twelve", "forty-nine"]


@pytest.fixture(scope="module")
def run(tiny_run):
  return zoo.load(tiny_run)


def test_completion_offers_the_verbs(run):
  assert {"translate", "score", "attention", "describe", "card", "evaluate"} <= set(dir(run))
  assert not {name for name in dir(run) if name.startswith("_")} and not {"take", "task", "params"} & set(dir(run))
  assert run.params and run.config  # which are there all the same


def test_a_notebook_shows_a_run(run):
  text = run._repr_html_()
  assert "transformer" in text and "translate" in text and "checkpoint" in text and "<script" not in text


def test_the_card_of_a_run(run, tmp_path):
  assert run.card["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(run.params))
  assert run.card["scores"] == [] and "not evaluated" in repr(run.card) and "\n" not in repr(run.card)
  assert f'zoo.load("{run.task.workdir}")' in run.card._repr_markdown_()
  # One that came with a folder brings what the folder says.
  score = {"split": "test", "bleu": [{"name": "sacreBLEU", "score": 12.5, "signature": "<b>s</b>"}]}
  folder.write(run, tmp_path / "out", "bfloat16")
  about = json.loads((tmp_path / "out" / "card.json").read_text())
  for scores, shown in (([score], "test: sacreBLEU 12.50"), ([{"split": 3, "bleu": 7}], "not evaluated")):
    (tmp_path / "out" / "card.json").write_text(json.dumps(about | {"scores": scores}))
    (tmp_path / "out" / "SHA256SUMS").unlink()
    folder.write_sums(tmp_path / "out")
    card = zoo.load(tmp_path / "out").card
    assert shown in repr(card) and "<b>" not in card._repr_markdown_()
  assert "stored as bfloat16" in zoo.load(tmp_path / "out").card._repr_markdown_() or scores[0]["bleu"] == 7


def test_attention_shows_itself_and_writes_a_page(run, tmp_path):
  seen = run.attention("forty-nine")
  assert seen.page(tmp_path / "out.html") == str(tmp_path / "out.html")
  text = (tmp_path / "out.html").read_text()
  assert all(f'"name":"{name}"' in text for name in ("Cross-attention", "Encoder", "Decoder"))
  assert seen._repr_html_().startswith("<iframe sandbox") and "<script" not in seen._repr_html_()
  assert seen.show()._repr_png_() and seen.show("decoder", layer=0, head=1)._repr_png_()
  assert "cross: 1 layers, 2 heads" in repr(seen)
  with pytest.raises(UserError, match="no attention 'self'; there is cross, encoder, decoder"):
    seen.show("self")
  with pytest.raises(UserError, match="layer 1, head None is not among 1 layers with 2 heads"):
    seen.show(layer=1)


def test_attention_of_one_head_and_of_none(tmp_path):
  """Of recurrent models: those that attend have one head, and weights that may sum to less than 1."""
  weights = np.array([[[[0.5, 0.2], [0.1, 0.6]]]], np.float32)
  seen = Attention(["▁a", "</s>"], ["▁b", "</s>"], None, None, weights, -1.0)
  assert '"heads":1' in seen.html() and seen.show()._repr_png_()
  none = Attention(["▁a"], ["▁b"], None, None, None, -1.0)
  with pytest.raises(UserError, match="no attention to show"):
    none.page(tmp_path / "out.html")
  assert "no attention to show" in none._repr_html_() and "of no kind" in repr(none)


def test_attention_of_a_text():
  weights = np.tril(np.ones((2, 2, 3, 3), np.float32)) / np.arange(1, 4, dtype=np.float32)[:, None]
  seen = TextAttention(["<s>", "▁a", "b"], ["▁a", "b", "</s>"], weights, -3.0)
  assert '"name":"Self-attention"' in seen.html() and '"kind":"causal"' in seen.html()


def test_a_verb_of_another_task_is_answered_with_those_of_this_one(run):
  with pytest.raises(AttributeError, match="a run of the task 'translation' has no 'sample'; it has .*, translate$"):
    run.sample("seven")
  assert not hasattr(run, "sample") and not hasattr(run, "_sample")


@pytest.mark.parametrize("verb", ["translate", "score", "attention"])
def test_calls_of_like_shape_are_compiled_once(run, verb):
  call = {
    "translate": lambda text: run.translate([text]),
    "score": lambda text: run.score([text], ["sieben"]),
    "attention": lambda text: run.attention(text, "sieben"),
  }[verb]
  call("seven")
  with compilations() as names:
    call("forty-nine")
    call("one hundred and twelve")
    assert not names
    jax.jit(lambda x: x + 3.25)(1.5)  # the counter counts
    assert len(names) == 1


def test_threads_share_a_run(run):
  want = run.translate(SENTENCES), [score.logprob for score in run.score(SENTENCES, SENTENCES)]
  found = {}

  def work(i):
    found[i] = [
      (run.translate(SENTENCES), [score.logprob for score in run.score(SENTENCES, SENTENCES)]) for _ in range(3)
    ]

  threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(120)
  assert found == {0: [want] * 3, 1: [want] * 3}


def test_threads_share_a_run_that_has_compiled_nothing(tiny_run):
  run, found = zoo.load(tiny_run), []
  threads = [threading.Thread(target=lambda: found.append(run.translate(["seven"])), daemon=True) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(120)
  assert len(found) == 2 and found[0] == found[1]
