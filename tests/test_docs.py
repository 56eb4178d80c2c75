"""The index of attentions names every public function there is, and nothing that is not."""

import ast
import pathlib
import re

from attention_zoo.ops import variant

ROOT = pathlib.Path(__file__).parents[1]
OPS = ROOT / "attention_zoo" / "ops"
TEXT = (ROOT / "docs" / "attention.md").read_text()
HELPERS = {"adapters.py", "cache.py", "einsum.py", "shapes.py", "variant.py", "__init__.py"}  # not attentions
PUBLIC = {
  f"{path.name}: {node.name}": (ast.get_docstring(node) or "", ast.get_docstring(tree) or "")
  for path in sorted(OPS.glob("*.py"))
  for tree in [ast.parse(path.read_text())]
  for node in tree.body
  if isinstance(node, ast.FunctionDef) and not re.match("_|check_", node.name) and path.name not in HELPERS
}
NAMES = set(re.findall(r"`([^`\s]+)`", TEXT)) | set(re.findall(r"`(\w+)\(", TEXT))


def test_every_public_function_is_there():
  missing = [name for name in PUBLIC if name.split(": ")[1] not in NAMES and not name.endswith("_cell")]
  assert not missing
  assert set(variant.by_name()) <= NAMES


def test_every_public_function_says_what_it_costs():
  """In its own docstring, or that of its file; those that only bring a function into a layer cost what that costs."""
  silent = [
    name
    for name, docs in PUBLIC.items()
    if "cost" not in " ".join(docs).lower() and name.split(": ")[1] not in variant.by_name()
  ]
  assert not silent


def test_every_file_that_is_named_exists():
  for name in NAMES:
    if name.endswith(".py"):
      places = ROOT, OPS, ROOT / "tests", ROOT / "attention_zoo"
      assert any((place / name).exists() for place in places), name
