"""The index of attentions names every public function there is, and nothing that is not."""

import ast
import pathlib
import re

from attention_zoo.ops import variant

ROOT = pathlib.Path(__file__).parents[1]
OPS = ROOT / "attention_zoo" / "ops"
TEXT = (ROOT / "docs" / "attention.md").read_text()
HELPERS = {"einsum.py", "shapes.py", "variant.py", "__init__.py"}  # not attentions
NAMES = set(re.findall(r"`([^`\s]+)`", TEXT)) | set(re.findall(r"`(\w+)\(", TEXT))


def test_every_public_function_is_there():
  functions = {
    f"{path.name}: {node.name}"
    for path in OPS.glob("*.py")
    if path.name not in HELPERS
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and not re.match("_|check_", node.name) and not node.name.endswith("_cell")
  }
  missing = [name for name in sorted(functions) if name.split(": ")[1] not in NAMES]
  assert not missing
  assert set(variant.names()) <= NAMES


def test_every_file_that_is_named_exists():
  for name in NAMES:
    if name.endswith(".py"):
      places = ROOT, OPS, ROOT / "tests", ROOT / "attention_zoo"
      assert any((place / name).exists() for place in places), name
