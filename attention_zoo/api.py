"""What a notebook needs: `list` and `build` models, `load` a run and use it or an `ensemble`,
without configs/ or the mesh the run was trained on."""

import atexit
import builtins
import dataclasses
import fnmatch
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable

from etils import epath

from attention_zoo import files, hardware, models, tasks
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest
from attention_zoo.tasks import arguments
from attention_zoo.tasks import describe as describe_lib
from attention_zoo.tasks.describe import Description
from attention_zoo.tasks.ensemble import Ensemble
from attention_zoo.tasks.sizes import SIZES, Sizes
from attention_zoo.tasks.translator import Translator
from attention_zoo.training import compilation, distributed, exported, loading, untrusted
from attention_zoo.training.workdir import read_config, read_text

PRETRAINED = epath.Path(__file__).parent / "pretrained"


def list(pattern: str = "*") -> builtins.list[str]:
  """The names of the models that match a pattern such as "*lm*"."""
  return fnmatch.filter(sorted(models.MODELS), pattern)


def build(name: str, **fields):
  """A model (a Flax module) by name: zoo.build("transformer_lm", vocab_size=50257).

  fields: of its `Config`, whose other fields have their defaults.
  Raises UserError for a name or field that there is not, and for values that do not go together.
  """
  module = models.find(name)
  known = {field.name for field in dataclasses.fields(module.Config)}
  for field in fields:
    if field not in known:
      raise UserError(f"{name} has no field {field!r}{nearest(field, known)}; it has {', '.join(sorted(known))}")
  try:
    return module.Model(module.Config(**fields))
  except (TypeError, ValueError) as error:
    raise UserError(f"{name}: {error}") from error


def describe(name: str, *, rows: int = 1, length: int = 32, **fields) -> Description:
  """What a model consists of: parameters, shapes, operations, without computing any. A notebook shows it as a table.

  zoo.describe("transformer", vocab_size=37000). rows, length: of the batch. fields: as in `build`.
  Raises UserError as that does, and for rows or a length that the model does not take.
  """
  rows, length = arguments.whole(rows, "rows", 1, 10**6), arguments.whole(length, "length", 1, 10**6)
  config = build(name, **fields).config
  try:
    return describe_lib.describe(name, models.find(name), config, rows=rows, length=length)
  except ValueError as error:
    raise UserError(f"{name} does not take {rows} rows of {length} tokens: {error}") from error


def sizes() -> Sizes:
  """The lecture's table of model sizes, from the first Transformer to Megatron-LM, with the zoo's own counts."""
  return Sizes(SIZES)


def pretrained() -> builtins.list[str]:
  """The names of the trained models that come with the package: zoo.load("phrasebook-en-de")."""
  folders = PRETRAINED.iterdir() if PRETRAINED.is_dir() else ()
  return sorted(folder.name for folder in folders if exported.is_exported(folder))


def ensemble(runs: Iterable[Translator]) -> Ensemble:
  """Several loaded translation runs as one, which translates by the mean of their probabilities.

  zoo.ensemble([zoo.load("runs/a"), zoo.load("runs/b")]).translate([...]). The models may differ.
  Raises UserError where the vocabularies or languages do.
  """
  return Ensemble(runs)


def load(
  path: str | os.PathLike, checkpoint: str | int | None = None, data_dir: str | os.PathLike | None = None
) -> Translator:
  """Opens a run's parameters for use on the devices at hand.

  path: the work directory, or a folder that `python -m attention_zoo.export` wrote; local or gs://. Or one of
  `pretrained()`, where no run has that name. checkpoint: "average", "latest" or a step; by default the average where
  it is newer and not worse than the latest
  (`training.loading.load`). data_dir: where the text lies now, in place of config.data.dir. Returns the task's runner,
  for translation `tasks.translator.Translator`; its `checkpoint`, `step` and `parents` say what was taken. On a CPU
  that has no units for bfloat16 a run that was
  trained in it computes in float32, which is faster there and no less exact: `run.config.model` says so.
  Raises UserError when there is no such run or checkpoint, and for a folder that is not as training leaves it: it may
  come from anybody (`training/untrusted.py`).
  """
  distributed.hush_libtpu()
  compilation.prepare()
  path = epath.Path(files.expand(path))
  if str(path) in pretrained() and not files.exists(path / "config.json"):  # evaluate leaves a folder of that name
    path = PRETRAINED / str(path)
  untrusted.check_folder(path)
  if exported.is_exported(path):
    exported.check_small(path)
  try:
    config = read_config(path)
  except ImportError as error:
    raise UserError(f"to read {path}, install what Cloud Storage needs: pip install 'attention_zoo[gcs]'") from error
  run_of = {"config": config.to_dict()} | read_text(path)  # as it was written: without fields that came later
  tasks.validate(config)
  untrusted.check_digest(path)
  untrusted.check_ranges(config)
  if "cache_dir" in config.data:
    # Where somebody else's run kept its tokens is not where this one may write, nor is an exported folder.
    config.data.cache_dir = str(_cache() / "tokens") if exported.is_exported(path) else ""
  if data_dir is not None:
    config.data.dir = str(data_dir)
  _suit_processor(config)
  task = tasks.make(config, path)
  task.check()
  if exported.is_exported(path):
    if checkpoint not in (None, exported.EXPORTED):
      raise UserError(f"{path} is an exported model with one set of parameters: there is no checkpoint {checkpoint}")
    found = exported.load(path, task)
  else:
    shapes = untrusted.abstract_items(task, path)
    read = lambda directory: untrusted.read_params(directory, shapes[directory.name])
    found = loading.load(path, checkpoint, run_of, read)
    if shapes["variables"] and not found.variables:
      raise UserError(f"the checkpoint {found.checkpoint} in {path} lacks the variables of the model in config.json")
  run = task.runner(found.params, found.variables, checkpoint=found.checkpoint, step=str(found.steps[-1]))
  run.parents = found.steps
  return run


@functools.cache
def _cache() -> pathlib.Path:
  """Where tokens of exported folders are kept: the user's cache, or a folder that ends with this process."""
  if (root := compilation.cache_root()) is None:
    root = pathlib.Path(tempfile.mkdtemp(prefix="attention_zoo_"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
  return root


def _suit_processor(config):
  """Changes a loaded run's config, by which nothing is trained any more."""
  if not hardware.multiplies_bfloat16():
    for field in {"dtype", "matmul_dtype"} & {*config.model}:
      config.model[field] = "float32"
