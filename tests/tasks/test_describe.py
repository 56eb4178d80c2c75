"""What a model consists of, told without computing any of it."""

import jax
import jax.numpy as jnp
import pytest

import attention_zoo as zoo
from attention_zoo import models
from attention_zoo.errors import UserError
from attention_zoo.tasks.describe import describe
from attention_zoo.training.aot import matmul_flops
from tests.config_files import get_config, make_task


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_is_described(name):
  module = models.find(name)
  config = module.small()
  found = describe(name, module, config, length=4)
  assert found.parameters == module.parameter_count(config)
  leaves = [part for part in found.parts if not part.kind]
  assert sum(part.parameters for part in leaves) == found.parameters
  shapes = models.batch_shapes(module, config, rows=1, length=4)
  batch = {field: jax.ShapeDtypeStruct(shape, jnp.int32) for field, shape in shapes.items()}
  model = module.Model(config)
  params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  assert len(leaves) == len(jax.tree.leaves(params))
  assert found.flops == matmul_flops(jax.make_jaxpr(model.apply)({"params": params}, batch).jaxpr)
  by_path = {part.path: part for part in found.parts}
  for part in found.parts:  # a part holds no more than what it is in
    assert not part.path or part.parameters <= by_path[part.path[:-1]].parameters
    assert not part.flops or not part.path or part.flops <= by_path[part.path[:-1]].flops
  assert f"{found.parameters:,} parameters" in repr(found)


# The sizes of papers, of which nothing could be computed here.
@pytest.mark.parametrize("name", ["transformer_big", "language/gpt2", "seq2seq/gnmt_ende", "seq2seq/moe_lstm_ende"])
def test_published_sizes_are_described(name):
  config = get_config(name)
  task = make_task(config)
  found = describe(config.model.name, task.module, task.model_config, length=8)
  assert found.parameters == task.module.parameter_count(task.model_config)
  assert found.flops > found.parameters  # each is used at more than one place


def test_the_shapes_of_base():
  found = zoo.describe("transformer", vocab_size=37_000, length=32)
  parts = {"/".join(part.path): part for part in found.parts}
  assert found.parameters == 63_045_632
  assert parts["encoder/layer_0/self_attention/query"].shapes == ("f32[1, 32, 8, 64]",)
  assert parts["encoder/layer_0/self_attention/query/kernel_DNK"].shapes == ("f32[512, 8, 64]",)
  assert parts["encoder/layer_0/feed_forward/wi"].flops == 2 * 32 * 512 * 2048
  # Four projections, and the products of queries with keys and of weights with values.
  assert parts["encoder/layer_5/self_attention"].flops == 4 * 2 * 32 * 512 * 512 + 2 * 2 * 8 * 32 * 32 * 64
  assert "layer_0 (and 5 more like it)" in repr(found) and "layer_1 " not in repr(found)
  page = found._repr_html_()
  assert "63,045,632 parameters" in page and "f32[512, 8, 64]" in page and "<script" not in page


def test_loops_count_as_often_as_they_run():
  short, long = (zoo.describe("lstm_lm", vocab_size=50, d_model=8, d_hidden=8, length=n) for n in (4, 16))
  assert long.flops == 4 * short.flops and long.parameters == short.parameters


def test_more_rows_cost_more():
  one, three = (
    zoo.describe("transformer_lm", vocab_size=50, num_layers=1, d_model=8, num_heads=2, d_k=4, d_v=4, rows=n)
    for n in (1, 3)
  )
  assert three.flops == 3 * one.flops and "3 rows of 32 tokens" in repr(three)


def test_a_run_describes_itself(tiny_run):
  run = zoo.load(tiny_run)
  found = run.describe()
  assert found.length == run.config.data.row_length
  assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(run.params))
  with pytest.raises(UserError, match="length must be a whole number"):
    run.describe(length=0)


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"length": "x"}, "length must be a whole number"), ({"rows": 0}, "rows must be a whole number"),
    ({"positions": "learned", "max_length": 8, "length": 9}, "does not take 1 rows of 9 tokens: .*8"),
  ],
)  # fmt: skip
def test_batches_that_are_none_are_told(options, match):
  with pytest.raises(UserError, match=match):
    zoo.describe("transformer_lm", vocab_size=11, d_model=8, num_heads=2, d_k=4, d_v=4, d_ff=8, num_layers=1, **options)
