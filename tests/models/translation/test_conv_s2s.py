"""ConvS2S against loops written from the paper, and what is special about it: lengths, gradients, first values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.translation import conv_s2s
from tests.conformance.test_translation_models import batch_of, packed
from tests.models.translation.placed import assert_one_device_equals_eight
from tests.ops.against import assert_close, softmax

SMALL = conv_s2s.small()
HALF = np.sqrt(0.5)


def draw(*lengths, rows=1, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(4, SMALL.vocab_size, (rows, length)).astype(np.int32) for length in lengths]


def random_params(config=SMALL):
  shapes = jax.eval_shape(conv_s2s.Model(config).init, jax.random.key(0), batch_of(*draw(3, 4)))["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes)


# The paper in float64, one sentence pair at a time


def kernel(p):
  """w = g v / |v|, output by output."""
  (v,) = (p[name] for name in p if name.startswith("v_"))
  (g,) = (p[name] for name in p if name.startswith("g_"))
  if "v_VD" in p:
    return np.array([g[i] * v[i] / np.linalg.norm(v[i]) for i in range(len(g))])
  return np.stack([g[i] * v[..., i] / np.linalg.norm(v[..., i]) for i in range(len(g))], -1)


def linear(x, p):
  (bias,) = (p[name] for name in p if name.startswith("bias"))
  return x @ kernel(p["kernel"]) + bias


def gated_convolution(x, p, causal):
  w, out = kernel(p["kernel"]), []
  left = len(w) - 1 if causal else (len(w) - 1) // 2
  for i in range(len(x)):
    y = p["bias_A"].copy()
    for k in range(len(w)):
      if 0 <= i + k - left < len(x):
        y = y + x[i + k - left] @ w[k]
    a, b = np.split(y, 2)
    out.append(a / (1 + np.exp(-b)))
  return np.array(out)


def stack(x, p, causal, keys=None, values=None):
  g, h = x, linear(x, p["enter"])
  for i in range(len(p) - 2):
    layer = p[f"layer_{i}"]
    residual = linear(h, layer["residual"]) if "residual" in layer else h
    h = gated_convolution(h, layer["convolution"], causal)
    if causal:
      attention = layer["cross_attention"]
      d = (linear(h, attention["query"]) + g) * HALF
      m = len(keys)
      c = np.array([softmax(keys @ d_i) @ values for d_i in d]) * (m * np.sqrt(1 / m))
      h = (linear(c, attention["output"]) + h) * HALF
    h = (h + residual) * HALF
  return linear(h, p["leave"])


def oracle(params, source, target):
  """Logits of one pair."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

  def embed(side, ids):
    return p[f"{side}_embedding"]["table_VD"][ids] + p[f"{side}_positions"]["table_TD"][: len(ids)]

  e = embed("source", source)
  z = stack(e, p["encoder"], causal=False)
  h = stack(embed("target", [1, *target[:-1]]), p["decoder"], True, z, (z + e) * HALF)
  return h @ kernel(p["output"]).T


def test_equals_the_paper_and_is_counted():
  """Two pairs a row; kernels of odd and even width, and layers that change the width."""
  params = random_params()
  pairs = draw(5, 6), draw(3, 7, seed=1)
  apply = jax.jit(lambda batch: conv_s2s.Model(SMALL).apply({"params": params}, batch))
  wanted = [oracle(params, source[0], target[0]) for source, target in pairs]
  assert_close(apply(packed(*(batch_of(*pair) for pair in pairs)))[0], np.concatenate(wanted))
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == conv_s2s.parameter_count(SMALL)


def test_kernels_instead_of_normalised_ones_are_the_same_model():
  config = dataclasses.replace(SMALL, weight_norm=False)
  params, batch = random_params(), batch_of(*draw(5, 6))
  kernels = conv_s2s.plain(params)
  shapes = jax.eval_shape(conv_s2s.Model(config).init, jax.random.key(0), batch)["params"]
  assert jax.tree.map(jnp.shape, kernels) == jax.tree.map(jnp.shape, shapes)
  assert sum(leaf.size for leaf in jax.tree.leaves(kernels)) == conv_s2s.parameter_count(config)
  found = conv_s2s.Model(config).apply({"params": kernels}, batch)
  assert_close(found, conv_s2s.Model(SMALL).apply({"params": params}, batch))
  assert_close(conv_s2s.output_table(kernels), conv_s2s.output_table(params))


def test_the_gradient_of_the_encoder_is_divided_by_the_number_of_attentions():
  """But not that of the embeddings, which are values as well: their table gets the rest undivided."""
  params, batch = random_params(), batch_of(*draw(5, 6))

  def gradient(factor):
    def loss(params):
      return jnp.square(conv_s2s.Model(SMALL).apply({"params": params}, batch)).mean()

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(conv_s2s, "scale_gradient", lambda x, _: real(x, factor))
      return jax.jit(jax.grad(loss))(params)

  real = conv_s2s.scale_gradient
  whole, none = gradient(1.0), gradient(0.0)
  found = jax.jit(jax.grad(lambda p: jnp.square(conv_s2s.Model(SMALL).apply({"params": p}, batch)).mean()))(params)
  expected = jax.tree.map(lambda whole, none: none + (whole - none) / 3, whole, none)
  jax.tree.map(assert_close, found, expected)
  assert not any(leaf.any() for leaf in jax.tree.leaves(none["encoder"]))
  assert none["source_embedding"]["table_VD"].any()


def test_first_values_keep_the_variance():
  """Deviations of section 3.5, and g the length of v, so that a kernel is what was drawn."""
  config = dataclasses.replace(SMALL, d_model=64, widths=(64, 96), kernel_sizes=(3, 1), dropout=0.2, vocab_size=200)
  params = jax.jit(conv_s2s.Model(config).init)(jax.random.key(0), batch_of(*draw(3, 4)))["params"]
  stack, attention = params["decoder"], params["decoder"]["layer_1"]["cross_attention"]
  for kernel, wanted in (
    (stack["layer_0"]["convolution"]["kernel"], np.sqrt(4 * 0.8 / (3 * 64))),
    (stack["layer_1"]["convolution"]["kernel"], np.sqrt(4 * 0.8 / 64)),
    (stack["layer_1"]["residual"]["kernel"], np.sqrt(1 / 64)),
    (stack["enter"]["kernel"], np.sqrt(0.8 / 64)),
    (stack["leave"]["kernel"], np.sqrt(1 / 96)),
    (attention["query"]["kernel"], np.sqrt(1 / 96)),
    (attention["output"]["kernel"], np.sqrt(1 / 64)),
    (params["output"], np.sqrt(0.8 / 64)),
  ):
    (made,) = conv_s2s.plain(kernel).values()
    (drawn,) = (kernel[name] for name in kernel if name.startswith("v_"))
    assert_close(made, np.asarray(drawn))
    assert abs(made.std() / wanted - 1) < 0.05
  for name, table in (("source_embedding", "table_VD"), ("target_positions", "table_TD")):
    assert abs(params[name][table].std() / 0.1 - 1) < 0.1
  assert not any(leaf.any() for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "bias" in str(path[-1]))


def test_dropout_is_of_embeddings_inputs_and_output():
  config = dataclasses.replace(SMALL, dropout=0.5)
  model, params, batch = conv_s2s.Model(config), random_params(), batch_of(*draw(5, 6))
  masks = []

  def count(next_function, args, kwargs, context):
    if isinstance(context.module, conv_s2s.Dropout) and context.method_name == "__call__":
      masks.append(context.module.path)
    return next_function(*args, **kwargs)

  with conv_s2s.nn.intercept_methods(count):
    model.apply({"params": params}, batch, train=True, rngs={"dropout": jax.random.key(0)})
  layers = [(stack, f"layer_{i}") for stack in ("encoder", "decoder") for i in range(3)]
  assert sorted(path[:2] for path in masks if len(path) == 3) == sorted(layers)
  assert sum(len(path) == 1 for path in masks) == 3  # source, target, output


def test_longer_than_the_positions_is_told():
  params = random_params()
  with pytest.raises(ValueError, match="learned positions end at model.max_length = 16, .* may be 17 long"):
    conv_s2s.Model(SMALL).apply({"params": params}, batch_of(*draw(17, 4)))
  inputs = {name: value for name, value in batch_of(*draw(5, 6)).items() if name.startswith("source")}
  assert conv_s2s.decoding(SMALL, params, inputs, num_beams=2).max_length == 16 and SMALL.bounded


@pytest.mark.parametrize("rules", ["data_parallel", "fsdp"])
def test_one_device_equals_eight(rules):
  config = dataclasses.replace(SMALL, widths=(6, 4), kernel_sizes=(3, 1))
  assert_one_device_equals_eight(conv_s2s, config, random_params(config), batch_of(*draw(5, 6, rows=8)), rules)


@pytest.mark.parametrize(
  ("fields", "complaint"),
  [
    (dict(widths=(8, 8)), "one number a layer, got 2 and 3"),
    (dict(widths=(8, 0, 8)), "model.widths must be whole numbers of at least 1"),
    (dict(kernel_sizes=(3, 3.0, 3)), "model.kernel_sizes must be whole numbers"),
    (dict(widths=(), kernel_sizes=()), "one number a layer"),
    (dict(dropout=1.0), "model.dropout"),
    (dict(max_length=0), "model.max_length must be at least 1"),
    (dict(matmul_dtype="float16"), "model.matmul_dtype"),
  ],
)
def test_bad_configs_are_told(fields, complaint):
  with pytest.raises(ValueError, match=complaint):
    dataclasses.replace(SMALL, **fields)
