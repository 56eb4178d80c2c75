"""docs/systems.md: every row of the lectures once, and nothing in it that there is not."""

import pathlib
import re

from attention_zoo.models import MODELS
from attention_zoo.ops import variant

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "systems.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| \d", line)]
LAST = 122


def test_every_row_is_there_once():
  assert [int(row[0]) for row in ROWS] == [*range(1, LAST + 1)]
  assert {row[2] for row in ROWS} <= {"stands", "part", "missing", "named"}


def test_what_stands_says_where():
  assert all(bool(where) == (state in ("stands", "part")) for _, _, state, where, *_ in ROWS)


def test_what_is_named_exists():
  for number, _, _, where, *_ in ROWS:
    for word, names in re.findall(r"\b(model|attention|config)s? (`\w[^,;]*`(?:, `\w[^,;]*`)*)", where):
      for name in re.findall(r"`([\w/]+)`", names):
        if "." in name:
          continue
        there = {
          "model": name in MODELS, "attention": name in variant.by_name(),
          "config": (ROOT / "configs" / f"{name}.py").exists(),
        }  # fmt: skip
        assert there[word], f"row {number}: there is no {word} {name}"
    for path in re.findall(r"`([\w/]+(?:\.(?:py|ipynb)|/))`", where):
      assert any((place / path).exists() for place in (ROOT, ROOT / "attention_zoo")), f"row {number}: {path}"


def test_every_model_is_there():
  models = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[3])}
  assert not MODELS.keys() - models - {"transformer_lm", "lstm_lm", "factorised"}  # plain ones, of no row
