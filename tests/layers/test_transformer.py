"""Layers and stacks: causality and memory apart, attentions in turn, and what a config may say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers import transformer as layers
from attention_zoo.models.language import transformer_lm
from attention_zoo.ops import dot_product

CONFIG = dataclasses.replace(transformer_lm.small(), positions="none", bias=False)
B, T, S, D = 1, 5, 3, CONFIG.d_model


def slopes(causal, cross):
  """Which positions of x, and of the memory, each output hangs on."""
  stack = layers.Stack(CONFIG, layers.Layers(1, "dot_product", causal, cross))
  draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
  x_BTD, memory_BSD = draw(0, B, T, D), draw(1, B, S, D)
  segments_BT, segments_BS = jnp.ones((B, T), jnp.int32), jnp.ones((B, S), jnp.int32)
  memory = (memory_BSD, segments_BS) if cross else ()
  params = stack.init(jax.random.key(2), x_BTD, segments_BT, *memory)

  def run(x_BTD, memory_BSD):
    memory = (memory_BSD, segments_BS) if cross else ()
    return (stack.apply(params, x_BTD, segments_BT, *memory) * jnp.cos(jnp.arange(D))[None, None]).sum((0, 2))

  found = jax.jit(jax.jacrev(run, (0, 1)))(x_BTD, memory_BSD)
  return [np.asarray(slope).any((1, 3)) for slope in found]


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_causality_and_memory_are_two_things(causal, cross):
  own, memory = slopes(causal, cross)
  np.testing.assert_array_equal(own, np.tri(T, dtype=bool) if causal else np.ones((T, T), bool))
  assert (memory == cross).all()


def test_attentions_take_turns():
  text = "local(block_width=2), memory_compressed(width=3)"
  config = dataclasses.replace(CONFIG, num_layers=5, attention=text)
  names = [variant.name for variant in config.variants(config.stacks()["attention"])]
  assert names == ["local(block_width=2)", "memory_compressed(width=3)"] * 2 + ["local(block_width=2)"]
  batch = dict.fromkeys(("inputs", "segments", "positions"), jnp.ones((1, T), jnp.int32))
  shapes = jax.eval_shape(lambda: transformer_lm.Model(config).init(jax.random.key(0), batch))["params"]["decoder"]
  compressed = ["key_kernel_WNKK" in shapes[f"layer_{i}"]["self_attention"] for i in range(5)]
  assert compressed == [False, True, False, True, False]
  assert not config.packs and dataclasses.replace(config, attention="alibi, rotary").packs


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"attention": "alibi, rotari", "num_layers": 1}, "model.attention: there is no attention 'rotari'"),
    ({"attention": "alibi rotary"}, "model.attention: .* is not of the form"),
    ({"attention": ""}, "model.attention: .* is not of the form"),
    ({"activation": "tanh"}, "model.activation must be one of"),
    ({"num_heads": 0}, "model.num_heads must be at least 1, got 0"),
    ({"dropout": 1.5}, "model.dropout must be from 0 to 1, got 1.5"),
    ({"norm_epsilon": -1.0}, "model.norm_epsilon must be from 0 to 1, got -1.0"),
    ({"feed_forward": "mixture_of_experts(num_experts=2)"}, "model.feed_forward: the experts have the activation relu"),
  ],
)
def test_what_cannot_be_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **fields)


def test_biases_are_added_to_queries_keys_values_and_outputs():
  config = dataclasses.replace(CONFIG, bias=True)
  stack = layers.Stack(config, layers.Layers(1, "dot_product", causal=True))
  x_BTD, segments_BT = jnp.ones((B, T, D)), jnp.ones((B, T), jnp.int32)
  own = jax.eval_shape(lambda: stack.init(jax.random.key(0), x_BTD, segments_BT))["params"]["layer_0"]["self_attention"]
  biases = {name: leaf.shape for part in own.values() for name, leaf in part.items() if name.startswith("bias")}
  assert biases == {"bias_NK": (2, 4), "bias_NH": (2, 4), "bias_D": (D,)}


def test_layers_that_are_alike_are_traced_once(monkeypatch):
  """Whatever they are called, forward and backward; another config, or another way to compute it, is traced anew."""
  traced = []
  plain = dot_product.dot_product_attention
  monkeypatch.setattr(dot_product, "dot_product_attention", lambda *x, **y: traced.append(0) or plain(*x, **y))
  config = dataclasses.replace(CONFIG, num_heads=1)  # nobody has traced this before
  x_BTD, segments_BT = jnp.ones((B, T, D)), jnp.ones((B, T), jnp.int32)

  def times(config):
    stack = layers.Stack(config, layers.Layers(4, "dot_product", causal=True))
    params = jax.eval_shape(stack.init, jax.random.key(0), x_BTD, segments_BT)
    traced.clear()
    loss = lambda params: stack.apply(params, x_BTD, segments_BT).sum()
    jax.jit(jax.grad(loss)).trace(params)
    return len(traced)

  assert times(config) == 1
  assert times(config) == 0
  assert times(dataclasses.replace(config, activation="relu")) == 1
  with dot_product.implementation("einsum"):
    assert times(config) == 1


@pytest.mark.parametrize(
  "fields",
  [
    dict(dropout=0.3),
    dict(dropout=0.3, residual="post", remat=True),
    dict(positions="sinusoidal", position_mode="add_every_layer", num_layers=3),
    dict(feed_forward="mixture_of_experts(num_experts=4)", activation="relu"),
  ],
  ids=["dropout", "remat", "signal", "experts"],
)
def test_a_loop_over_the_layers_changes_nothing(fields):
  """Values, gradients and losses, with the same random numbers; and parameters keep their names."""
  config = dataclasses.replace(transformer_lm.small(), **fields)
  ids_BT = jnp.arange(10, dtype=jnp.int32).reshape(2, 5)
  batch = {"inputs": ids_BT, "segments": jnp.ones_like(ids_BT), "positions": jnp.broadcast_to(jnp.arange(5), (2, 5))}

  def run(scan_layers):
    model = transformer_lm.Model(dataclasses.replace(config, scan_layers=scan_layers))
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    draw = lambda path, x: jax.random.normal(jax.random.key(len(jax.tree_util.keystr(path))), x.shape) * 0.3
    params = jax.tree_util.tree_map_with_path(draw, shapes)

    def loss(params):
      logits_BTV, sown = model.apply(
        {"params": params}, batch, train=True, rngs={"dropout": jax.random.key(1)}, mutable=["losses"]
      )
      return (logits_BTV * jnp.cos(jnp.arange(11))[None, None]).sum() + sum(jax.tree.leaves(sown)), logits_BTV

    (value, logits_BTV), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, logits_BTV, gradient, str(jax.make_jaxpr(loss)(params)).count("scan[")

  *plain, none = run(False)
  *looped, loops = run(True)
  assert jax.tree.structure(plain) == jax.tree.structure(looped) and loops == none + 1
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 2e-5, 2e-5), plain, looped)


def test_a_loop_needs_layers_that_are_alike():
  with pytest.raises(ValueError, match="needs layers that are alike, but model.attention = 'rotary, alibi'"):
    dataclasses.replace(transformer_lm.small(), scan_layers=True, attention="rotary, alibi")
