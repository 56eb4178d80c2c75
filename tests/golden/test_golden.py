"""Every config's parameters are what they have always been: checkpoints and sharding rules live by these names.

tests/golden/CONFIG.json lists [path, shape, dtype] of each parameter. After a change that is meant, write them anew:

  GOLDEN=write python -m pytest tests/golden
"""

import json
import math
import os
import pathlib

import jax
import pytest

from attention_zoo import models
from tests import config_files

HERE = pathlib.Path(__file__).parent
COUNTED = [name for name in config_files.NAMES if "params" in getattr(config_files.load(name), "PAPER", {})]


def manifest(config):
  leaves = jax.tree_util.tree_leaves_with_path(config_files.parameters(config))
  return sorted(
    [jax.tree_util.keystr(path, simple=True, separator="/"), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves
  )


def count(config):
  """Of the model, without the head of a task that has one."""
  return sum(math.prod(shape) for path, shape, _ in manifest(config) if "_head/" not in path)


@pytest.mark.parametrize("name", config_files.NAMES)
def test_parameters_are_those_of_the_manifest(name):
  path = HERE / f"{name}.json"
  found = manifest(config_files.get_config(name))
  if os.environ.get("GOLDEN") == "write":
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")
  assert path.exists(), f"a new config needs its manifest: GOLDEN=write python -m pytest tests/golden -k {name}"
  assert found == json.loads(path.read_text())


def test_no_manifest_is_left_over():
  assert {str(path.relative_to(HERE).with_suffix("")) for path in HERE.rglob("*.json")} == set(config_files.NAMES)


@pytest.mark.parametrize("name", config_files.NAMES)
def test_the_closed_form_counts_them(name):
  config = config_files.get_config(name)
  fields = dict(config.model)
  module = models.find(fields.pop("name"))
  assert count(config) == module.parameter_count(module.Config(**config_files.given(config), **fields))


@pytest.mark.parametrize(
  ("name", "exact", "printed"),
  [("transformer_base", 63_045_632, 65e6), ("transformer_big", 214_171_648, 213e6)],
)
def test_the_paper_counts_as_many(name, exact, printed):
  """Table 3 prints 65 and 213 million; with 37,000 shared word pieces it is 63 and 214."""
  assert count(config_files.get_config(name)) == exact
  assert exact == pytest.approx(printed, rel=0.07)


@pytest.mark.parametrize("name", COUNTED)
def test_rows_of_table_3_count_as_many_as_printed(name):
  assert count(config_files.get_config(name)) == pytest.approx(config_files.load(name).PAPER["params"], rel=0.07)
