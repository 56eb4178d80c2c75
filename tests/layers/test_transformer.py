"""Layers and stacks: causality and memory apart, attentions in turn, and what a config may say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.layers import transformer as layers
from attention_zoo.models.language import transformer_lm

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
  ("attention", "names"),
  [
    ("alibi", ["alibi"]),
    (" local(block_width=2) ,alibi,", ["local(block_width=2)", "alibi"]),
    ("shaw(max_distance=2, shared=True)", ["shaw(max_distance=2, shared=True)"]),
    ("alibi; rotary", ["alibi; rotary"]),
    ("()", ["()"]),
  ],
)
def test_a_text_is_split_at_its_commas(attention, names):
  assert layers.split(attention) == names


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"attention": "alibi, rotari", "num_layers": 1}, "model.attention: there is no attention 'rotari'"),
    ({"attention": "alibi rotary"}, "model.attention: .* is not of the form"),
    ({"attention": ""}, "model.attention: .* is not of the form"),
    ({"activation": "swish"}, "model.activation must be one of"),
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
