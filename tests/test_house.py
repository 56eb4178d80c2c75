"""The rules of the house: who imports whom, which words a room may not know, who writes files and takes paths,
and how long a file may be.

Each rule is a function from source text to complaints; each is shown a bad snippet before it is trusted.
"""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "attention_zoo"

# Who may import which rooms of the package (a room may always import itself, and SHARED).
SHARED = ("errors", "files", "grammar", "hardware", "protocols")
ROOMS = {
  "ops": (),
  "layers": ("ops",),
  "models": ("layers", "ops"),
  "data": (),
  "decoding": (),
  "training": (),
  "evaluation": (),
  "plots": (),
  "exchange": ("layers", "data", "training"),
  "tasks": ("models", "layers", "ops", "data", "decoding", "training", "evaluation", "plots", "exchange"),
}
# Files that lie in the package itself: entry points and what they share.
TOP = ("models", "tasks", "training", "exchange", "api", "cli", "progress", "streams", "__version__")
# Packages from outside, besides the standard library. Where a room is not listed, all but these two.
OUTSIDE = {
  "ops": {"jax", "numpy"},
  "layers": {"jax", "flax", "numpy"},
  "models": {"jax", "flax", "numpy"},
  "decoding": {"jax", "numpy"},
}
NOT_OUTSIDE = {
  "data": {"jax", "flax", "optax", "orbax", "tensorflow"},
  "tasks": {"tensorflow"},
}
DEFAULT_NOT_OUTSIDE = {"flax", "tensorflow"}
STANDARD = set(sys.stdlib_module_names)

ENTRY_POINTS = (
  "train", "evaluate", "average", "translate", "compile", "sample", "compare", "export", "import_model", "sizes",
  "human_evaluation",
)  # fmt: skip
FULL_INITS = ("", "models", "tasks")  # rooms whose __init__.py says something


def python_files(*folders):
  return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path):
  return str(path.relative_to(ROOT))


def complaints(check, paths):
  return [f"{name_of(path)}: {complaint}" for path in paths for complaint in check(path.read_text())]


# Imports


def imported(source):
  """(line, dotted name) of every import at any depth; `from a import b` counts as a.b."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
      if node.args and isinstance(node.args[0], ast.Constant):
        yield node.lineno, node.args[0].value


def room_complaints(room, source):
  """room: a folder of the package, or "" for the files in the package itself."""
  rooms = {room, *SHARED, *(ROOMS[room] if room else TOP)}
  for line, name in imported(source):
    first, *rest = name.split(".")
    if first == "":
      yield f"line {line} imports {name}: write the whole name"
    elif first == PACKAGE:
      if not rest or rest[0] not in rooms:
        yield f"line {line} imports {name}, allowed are {', '.join(sorted(rooms))}"
    elif first not in STANDARD:
      forbidden = NOT_OUTSIDE.get(room, DEFAULT_NOT_OUTSIDE)
      if first not in OUTSIDE[room] if room in OUTSIDE else first in forbidden:
        yield f"line {line} imports {name}"


def outside_complaints(allowed, source):
  """For the folders beside the package: nothing but the allowed top-level names."""
  for line, name in imported(source):
    first, second = (name.split(".") + [""])[:2]
    if first not in allowed and f"{first}.{second}" not in allowed:
      yield f"line {line} imports {name}, allowed are {', '.join(sorted(set(allowed) - STANDARD))}"


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_rooms_import_in_one_direction(room):
  paths = sorted((ROOT / PACKAGE / room).glob("*.py") if room == "" else (ROOT / PACKAGE / room).rglob("*.py"))
  assert paths
  assert not complaints(lambda source: room_complaints(room, source), paths)


def test_every_folder_is_a_known_room():
  folders = {path.parent.relative_to(ROOT / PACKAGE).parts[0] for path in (ROOT / PACKAGE).glob("*/*.py")}
  assert folders == {*ROOMS, "configs"}  # a link to the folder beside the package, so that wheels hold it


def test_configs_import_only_configs():
  assert not complaints(
    lambda source: outside_complaints({"ml_collections", "attention_zoo.configs"}, source), python_files("configs")
  )


def test_launchers_import_nothing_of_the_package():
  """But for errors and files; for the grid's report, which asks for a parameter count and a page; and for what looks at
  training's flags before a TPU is paid for, in a process of its own."""
  allowed = STANDARD | {"absl", "rich", "launch", "attention_zoo.errors", "attention_zoo.files"}
  files = {path.name: path for path in python_files("launch")}
  exceptions = [files.pop("ablation_report.py"), files.pop("preflight.py")]
  assert not complaints(lambda source: outside_complaints(allowed, source), files.values())
  assert not complaints(lambda source: outside_complaints(allowed | {"attention_zoo", "jax"}, source), exceptions)


@pytest.mark.parametrize(
  ("room", "snippet"),
  [
    ("ops", "import flax.linen as nn"),
    ("ops", "import optax"),
    ("ops", "from attention_zoo.layers import residual"),
    ("ops", "def f():\n  from attention_zoo import layers"),
    ("ops", "from ..models import transformer"),
    ("layers", "from attention_zoo.models.transformer import Config"),
    ("models", "from attention_zoo.decoding.beam import beam_search"),
    ("models", "import attention_zoo.training.loss"),
    ("decoding", "import flax"),
    ("decoding", "from attention_zoo.ops import dot_product"),
    ("decoding", "def f():\n  if True:\n    import attention_zoo.models as models"),
    ("data", "import jax"),
    ("data", "from attention_zoo.training import config"),
    ("data", "def f():\n  import tensorflow as tf"),
    ("training", "import importlib\ndef f(): return importlib.import_module('attention_zoo.models.transformer')"),
    ("training", "from attention_zoo.tasks import make"),
    ("training", "import flax"),
    ("evaluation", "from attention_zoo import plots"),
    ("plots", "from attention_zoo import api"),
    ("tasks", "from attention_zoo import cli"),
    ("tasks", "import attention_zoo"),
    ("", "from attention_zoo.layers import linear"),
    ("", "def main():\n  from attention_zoo.decoding import beam"),
  ],
)
def test_the_import_rule_catches(room, snippet):
  assert len(list(room_complaints(room, snippet))) == 1


def test_the_import_rules_beside_the_package_catch():
  assert (
    list(
      outside_complaints({"ml_collections", "attention_zoo.configs"}, "import os\nfrom attention_zoo.configs import a")
    )
    != []
  )
  assert (
    list(outside_complaints({"ml_collections", "attention_zoo.configs"}, "def f():\n  from attention_zoo import x"))
    != []
  )
  assert list(outside_complaints(STANDARD | {"absl"}, "def f():\n  import jax")) != []
  assert list(outside_complaints(STANDARD | {"absl"}, "import os.path\nfrom absl import app")) == []
  assert list(outside_complaints({"attention_zoo.files"}, "from attention_zoo import files")) == []
  assert list(outside_complaints({"attention_zoo.files"}, "from attention_zoo import api, files")) != []


def test_the_import_rule_lets_pass():
  assert not list(room_complaints("ops", "import math\nimport jax.numpy as jnp\nfrom attention_zoo.ops import masks"))
  assert not list(room_complaints("tasks", "import flax\nfrom attention_zoo import errors\nimport attention_zoo.data"))
  assert not list(room_complaints("", "from absl import flags\nfrom attention_zoo import api, cli"))


# Words

# What serves every task names none. The pages draw with SVG, whose word for moving a thing is another matter.
TASK_WORDS = re.compile(r"translat|bleu|encoder", re.IGNORECASE)
SVG = 'transform="translate('
GENERIC = ("training", "decoding", "plots", "train.py", "evaluate.py", "average.py", "compile.py")


def word_complaints(source):
  for number, line in enumerate(source.splitlines(), 1):
    for word in TASK_WORDS.findall(line.replace(SVG, "")):
      yield f"line {number} says {word!r}: the file is for every task"


def test_what_serves_every_task_names_none():
  places = [ROOT / PACKAGE / name for name in GENERIC]
  paths = [path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place])]
  paths = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
  assert len(paths) > 30
  assert not complaints(word_complaints, paths)


def test_the_word_rule_catches():
  for line in (
    '"""Sample translations."""',
    'CSS = ".zoo table.bleu"',
    "BLEU = 1",
    "params['encoder']",
    "def translate():",
  ):
    assert list(word_complaints(line)), line
  assert list(word_complaints(f"f'<text {SVG}0 0)\"> translated'"))
  assert not list(word_complaints(f"f'<text {SVG}0 0)\">'"))


# Writing

# `files` keeps devices, links, modes and neighbours as they are. Others write where nobody can have put any of these:
# in a folder that they have just made, into /dev/null, in the grid's own folder.
WRITERS = {
  "attention_zoo/files.py", "attention_zoo/streams.py", "attention_zoo/data/corpus.py",
  "attention_zoo/training/average.py", "attention_zoo/training/checksums.py",
  "launch/ablation_grid.py", "launch/ablation_run.py",
}  # fmt: skip


def writing_complaints(source):
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Call):
      owner, _, verb = ast.unparse(node.func).rpartition(".")
      texts = [x.value for x in (*node.args, *(k.value for k in node.keywords)) if isinstance(x, ast.Constant)]
      opened = verb == "open" and any(re.fullmatch("[rwxabt+]*[wxa+][rwxabt+]*", str(text)) for text in texts)
      written = verb in ("write_text", "write_bytes") and owner not in ("files", "streams")
      if opened or written or (owner == "os" and verb in ("rename", "replace")):
        yield f"line {node.lineno} writes by itself: {ast.unparse(node)}"


def test_files_are_written_in_one_place():
  paths = [path for path in python_files(PACKAGE, "launch") if name_of(path) not in WRITERS]
  assert not complaints(writing_complaints, paths)
  assert all(list(writing_complaints((ROOT / name).read_text())) for name in WRITERS)  # no longer than it must be


def test_the_writing_rule_catches():
  for line in (
    "path.write_text('a')", "(a / b).write_bytes(c)", "open(path, 'w')", "path.open(mode='ab')", "os.replace(a, b)",
  ):  # fmt: skip
    assert list(writing_complaints(line)), line
  for line in ("files.write_text(path, 'a')", "open(path)", "open('w.txt', 'rb')", "text.replace('a', 'b')"):
    assert not list(writing_complaints(line)), line


# Paths


def path_complaints(source):
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.keyword) and node.arg == "type" and ast.unparse(node.value) in ("pathlib.Path", "Path"):
      yield f"line {node.value.lineno}: the ~ of --flag=~/file stays as it is; type=files.expand replaces it"


def test_flags_know_the_home_directory():
  assert not complaints(path_complaints, python_files(PACKAGE, "launch", "benchmarks"))


def test_the_path_rule_catches():
  assert list(path_complaints("parser.add_argument('--out', type=pathlib.Path)"))
  assert not list(path_complaints("parser.add_argument('--out', type=files.expand)"))


# Sizes


def size_complaints(limit, source):
  if (lines := len(source.splitlines())) > limit:
    yield f"{lines} lines, at most {limit}"


def empty_complaints(source):
  if source:
    yield "must be empty"


def test_init_files_are_empty():
  full = [ROOT / PACKAGE / room / "__init__.py" for room in FULL_INITS]
  paths = [path for path in python_files(PACKAGE, "configs", "launch") if path.name == "__init__.py"]
  assert all(path in paths for path in full)
  assert not complaints(empty_complaints, [path for path in paths if path not in full])


def test_entry_points_only_wire():
  paths = [path for name in ENTRY_POINTS if (path := ROOT / PACKAGE / f"{name}.py").exists()]
  assert paths
  assert not complaints(lambda source: size_complaints(60, source), paths)


def test_files_are_short():
  assert not complaints(
    lambda source: size_complaints(400, source), python_files(PACKAGE, "configs", "launch", "benchmarks")
  )
  assert not complaints(lambda source: size_complaints(500, source), python_files("tests"))


def test_the_size_rules_catch():
  assert list(size_complaints(60, "x = 1\n" * 61)) and not list(size_complaints(60, "x = 1\n" * 60))
  assert list(empty_complaints('"""Words."""')) and not list(empty_complaints(""))
