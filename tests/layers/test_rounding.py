"""Which parameters are rounded beforehand: those that a function does nothing else with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers.rounding import rounded
from attention_zoo.models import find
from attention_zoo.ops.einsum import einsum


def types(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): x.dtype
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_a_leaf_that_is_used_otherwise_stays():
  params = {
    name: jnp.full((3, 3), 1 + 2**-9) for name in ("product", "twice", "lookup", "returned", "unused", "inside")
  }

  def function(p, x):
    y = einsum("BD,DF->BF", x, p["product"], None, "bfloat16") + x @ p["twice"]
    y += einsum("BD,DF->BF", x, p["twice"], None, "bfloat16") + p["lookup"][jnp.array([1])]
    y += jax.jit(lambda kernel: x @ kernel.astype(jnp.bfloat16).astype(jnp.float32))(p["inside"])
    return y, p["returned"], p["lookup"].astype(jnp.bfloat16)

  x = jnp.ones((1, 3))
  found = rounded(function, params, x)
  assert {name for name, dtype in types(found).items() if dtype == jnp.bfloat16} == {"product", "inside"}
  jax.tree.map(np.testing.assert_array_equal, function(found, x), function(params, x))


@pytest.mark.parametrize("name", ["transformer", "transformer_lm"])
def test_a_decoding_step_converts_no_kernel(name):
  """Whatever it is called: those of experts, of an attention's own and of joined positions too."""
  module = find(name)
  fields = {"matmul_dtype": "bfloat16", "dtype": "bfloat16", "position_mode": "concatenate", "activation": "relu"}
  fields["feed_forward"] = "mixture_of_experts(num_experts=3)"
  fields["attention" if name == "transformer_lm" else "decoder_attention"] = "transformer_xl"
  config = module.Config(**{**vars(module.small()), **fields})
  ids = jnp.ones((2, 3), jnp.int32)
  keys = "source source_segments source_positions inputs targets target_segments target_positions segments positions"
  batch = dict.fromkeys(keys.split(), ids)
  params = jax.eval_shape(lambda: module.Model(config).init(jax.random.key(0), batch))["params"]
  big = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1} - {(config.vocab_size, config.d_model)}

  def step(params):
    decoding = module.decoding(config, params, batch, num_beams=1)
    rounded_types.update(types(decoding.step.args[0]))
    return jax.jit(decoding.step)(ids[:, None, :1], 0, decoding.grow(decoding.cache, 3))

  rounded_types = {}
  jax.eval_shape(step, params)
  kernels = {path for path in rounded_types if "kernel" in path or "experts" in path}
  read = {
    path
    for path in kernels
    if not any(part in path for part in ("encoder", "source", "cross_attention/key", "cross_attention/value"))
  }
  assert big and any("position_kernel_DNK" in path for path in read) and any("joined" in path for path in read)
  assert {path for path in read if rounded_types[path] != jnp.bfloat16} == set()
  assert {path for path in rounded_types if "norm" in path and rounded_types[path] != jnp.float32} == set()
