"""Each attention and each head of the Image Transformer: what a position sees, to the bit, and its cached steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.models.image import image_transformer
from attention_zoo.models.image.image_transformer import Config
from tests.conformance import test_image_models as conformance
from tests.conformance.test_image_models import Made

LOCAL_2D = "local_2d(tile=(2, 2), flange=(1, 1))"
CASES = {
  "local 1D": dict(attention="local(block_width=6, memory_width=5)"),
  "full": dict(attention="dot_product", positions="learned", residual="pre", num_layers=1),
  "mixture, local 2D": dict(attention=LOCAL_2D, head="dmol", num_mixtures=2, positions="learned"),
  "mixture, local 1D": dict(attention="local(block_width=4, memory_width=4)", head="dmol", num_classes=0),
}


@pytest.fixture(scope="module", params=CASES)
def made(request):
  return Made("image_transformer", **CASES[request.param])


test_a_value_sees_those_before_it = conformance.test_a_value_sees_those_before_it_in_the_order_alone
test_steps_give_what_the_whole_image_gives = conformance.test_steps_give_what_the_whole_image_gives


def test_parameters_are_counted(made):
  assert sum(leaf.size for leaf in jax.tree.leaves(made.params)) == image_transformer.parameter_count(made.config)


def test_the_order_is_that_of_blocks():
  """Tiles of 2 x 2 pixels: the first holds the values 0 .. 5 and 12 .. 17 of an image of 4 x 4."""
  config = Config(size=4, d_model=8, attention=LOCAL_2D)
  assert config.order()[:13].tolist() == [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17, 6]
  assert Config(size=4, d_model=8, head="dmol", attention=LOCAL_2D).order()[:5].tolist() == [0, 1, 4, 5, 2]


def test_what_is_out_of_reach_is_not_seen():
  """One layer: the gradient by an embedding is zero outside block and memory."""
  made = Made("image_transformer", attention="local(block_width=6, memory_width=3)", num_layers=1)
  pixels = made.batch["pixels"]

  def output(table):
    params = made.params | {"values": {"table_3VD": table}}
    return made.model.apply({"params": params}, made.batch | {"pixels": pixels}, method="trunk")[0, 20].sum()

  # Every value of the image is another row of the tables.
  pixels = pixels.at[0].set(jnp.arange(48).reshape(4, 4, 3))
  gradient = jax.jit(jax.grad(output))(made.params["values"]["table_3VD"])
  seen = np.flatnonzero(np.asarray(gradient).any((0, 2)))
  # Position 20 is in the block 18 .. 23; position t was given the value before it.
  assert seen.tolist() == [14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(head="softmax"), "model.head must be 'categorical' or 'dmol', got 'softmax'"),
    (dict(d_model=6), "model.d_model must be a multiple of 4"),
    (dict(attention="local_2d(tile=(2, 3), flange=(1, 1))"), "model.attention: .*no multiple of the tile's 9"),
    (dict(attention="local_2d(tile=(2,), flange=(1, 1))"), "model.attention: .*must be two whole numbers"),
    (dict(size=6, attention="local_2d(tile=(4, 2), flange=(1, 1))"), "tiles have 4 rows, which do not divide .* 6"),
    (dict(attention=f"{LOCAL_2D}, dot_product"), "local_2d has an order of its own"),
    (dict(attention="memory_compresed"), "model.attention: there is no attention 'memory_compresed'"),
    (dict(feed_forward="mixture_of_experts(num_experts=2)"), "model.feed_forward must be 'dense'"),
    (dict(num_classes=-1), "model.num_classes must be at least 0"),
  ],
)
def test_bad_configs(fields, message):
  with pytest.raises(ValueError, match=message):
    Config(**dict(size=4, d_model=8) | fields)


def test_super_resolution_sees_the_whole_small_image():
  made = Made("image_transformer_sr")
  first = made.outputs(made.batch["pixels"])
  low = made.batch["low"]
  made.batch["low"] = low.at[0, 1, 1, 2].set((low[0, 1, 1, 2] + 100) % 256)
  changed = np.any(made.outputs(made.batch["pixels"]) != first, -1)
  assert changed[0].all() and not changed[1].any()


def test_the_papers_sizes():
  """12 layers of width 512: some 38 million parameters."""
  assert models.find("image_transformer").parameter_count(Config()) == pytest.approx(38e6, rel=0.05)
