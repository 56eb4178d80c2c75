"""ByteNet against loops written from the paper, and what is special about it: the unfolding and its reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.translation import bytenet
from tests.conformance.test_translation_models import batch_of, packed
from tests.models.translation.placed import assert_one_device_equals_eight
from tests.ops.against import assert_close

SMALL = bytenet.small()
MULTIPLICATIVE = dataclasses.replace(SMALL, residual="multiplicative", a=1.5)


def random_params(config):
  model = bytenet.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(*draw(3, 4)))["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes)


def draw(*lengths, rows=1, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(4, SMALL.vocab_size, (rows, length)).astype(np.int32) for length in lengths]


# The paper in float64, one sentence pair at a time


def layer_norm(x, p):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
  (kernel,) = (p[name] for name in p if name.startswith("kernel"))
  (bias,) = (p[name] for name in p if name.startswith("bias"))
  return x @ kernel + bias


def convolution(x, p, rate, causal):
  (kernel,) = (p[name] for name in p if name.startswith("kernel"))
  (bias,) = (p[name] for name in p if name.startswith("bias"))
  width, out = len(kernel), []
  for t in range(len(x)):
    y = bias.copy()
    for w in range(width):
      s = t - (width - 1 - w) * rate if causal else t + (w - (width - 1) // 2) * rate
      if 0 <= s < len(x):
        y = y + x[s] @ kernel[w]
    out.append(y)
  return np.array(out)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def unit(h, y):
  g1, g2, g3, u = np.split(y, 4, -1)
  return sigmoid(g1) * np.tanh(sigmoid(g2) * h + sigmoid(g3) * np.tanh(u))


def relu(x):
  return np.maximum(x, 0)


def block(x, p, rate, causal):
  h = linear(relu(layer_norm(x, p["enter_norm"])), p["enter"])
  h = relu(layer_norm(h, p["convolution_norm"]))
  y = convolution(h, p["convolution"], rate, causal)
  if "pointwise" in p:
    h = unit(h, y)
    return x + linear(unit(h, convolution(h, p["pointwise"], 1, causal)), p["leave"])
  return x + linear(relu(layer_norm(y, p["leave_norm"])), p["leave"])


def oracle(config, params, source, target):
  """Logits of one pair."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  scale = np.sqrt(2 * config.d)
  rates = [2**i for i in range(10) if 2**i <= config.max_rate] * config.num_sets
  length = int(config.a * len(source) + config.b + 1e-9)
  x = p["source_embedding"]["table_VD"][[*source, *[0] * (length - len(source))]] * scale
  for i, rate in enumerate(rates):
    x = block(x, p["encoder"][f"block_{i}"], rate, causal=False)
  y = p["target_embedding"]["table_VD"][[1, *target[:-1]]] * scale
  for t in range(min(len(x), len(y))):
    y[t] += x[t]
  for i, rate in enumerate(rates):
    y = block(y, p["decoder"][f"block_{i}"], rate, causal=True)
  y = relu(linear(layer_norm(y, p["closing_norm"]), p["closing"]))
  return y @ p["output"]["table_VD"].T


@pytest.mark.parametrize("config", [SMALL, MULTIPLICATIVE, dataclasses.replace(SMALL, b=2)], ids=["relu", "units", "b"])
def test_equals_the_paper_and_is_counted(config):
  """Targets shorter and longer than the estimate, two pairs a row where rows are packed."""
  params = random_params(config)
  pairs = draw(5, 9), draw(4, 3, seed=1)
  apply = jax.jit(lambda batch: bytenet.Model(config).apply({"params": params}, batch))
  wanted = [oracle(config, params, source[0], target[0]) for source, target in pairs]
  if config.packs:
    found = apply(packed(*(batch_of(*pair) for pair in pairs)))[0]
    assert_close(found, np.concatenate(wanted))
  else:
    for pair, logits in zip(pairs, wanted, strict=True):
      assert_close(apply(batch_of(*pair))[0], logits)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == bytenet.parameter_count(config)


def test_sources_are_extended_to_the_estimated_length():
  source_BS = jnp.array([[5, 6, 7, 8, 9, 4, 5, 6], [5, 6, 0, 0, 0, 0, 0, 0]], jnp.int32)
  segments_BS = jnp.array([[1, 1, 2, 2, 2, 2, 2, 3], [1, 1, 0, 0, 0, 0, 0, 0]], jnp.int32)
  found = bytenet.unfold(dataclasses.replace(SMALL, a=1.5), source_BS, segments_BS)
  np.testing.assert_array_equal(found.source_BS, [[5, 6, 0, 7, 8, 9, 4, 5, 0, 0, 6, 0], [5, 6, *[0] * 10]])
  np.testing.assert_array_equal(found.segments_BS, [[1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 0], [1, 1, 1, *[0] * 9]])
  found = bytenet.unfold(dataclasses.replace(SMALL, a=1.0, b=1), source_BS[1:, :3], segments_BS[1:, :3])
  np.testing.assert_array_equal(found.source_BS, [[5, 6, 0, 0]])
  np.testing.assert_array_equal(found.segments_BS, [[1, 1, 1, 0]])


@pytest.mark.parametrize("a", [1.0, 1.1, 1.15, 1.2, 1.7, 2.3])
def test_parts_of_a_row_fit_into_it(a):
  """Binary fractions would make 23 of 1.15 times 20, and 114 of 1.15 times 100."""
  lengths = dataclasses.replace(SMALL, a=a).unfolded(200)
  for total in range(1, 201):
    assert all(lengths[part] + lengths[total - part] <= lengths[total] for part in range(total))
  assert lengths[100] == round(100 * a)


def test_the_decoder_reaches_as_far_as_its_rates():
  """One set of width 3 and rates 1, 2, 4: 14 positions before its own, and nothing earlier."""
  params = random_params(SMALL)
  _, target_BT = draw(1, 20)
  batch = batch_of(np.full((1, 1), 4, np.int32), target_BT)

  def last(change_BTD):
    def add(next_function, args, kwargs, context):
      out = next_function(*args, **kwargs)
      embeds = context.module.name == "target_embedding" and context.method_name == "__call__"
      return out + change_BTD if embeds else out

    with bytenet.nn.intercept_methods(add):
      return bytenet.Model(SMALL).apply({"params": params}, batch)[0, -1].sum()

  slopes_T = np.abs(jax.jit(jax.grad(last))(jnp.zeros((1, 20, 2 * SMALL.d)))).max((0, 2))
  assert (slopes_T[:5] == 0).all() and slopes_T[5] > 0
  assert SMALL.rates == (1, 2, 4) and bytenet.Config(11).rates == (1, 2, 4, 8, 16) * 6


def test_dropout_is_of_what_blocks_add():
  config = dataclasses.replace(SMALL, dropout=1.0)
  params, batch = random_params(config), batch_of(*draw(5, 6))
  model = bytenet.Model(config)
  found = model.apply({"params": params}, batch, train=True, rngs={"dropout": jax.random.key(0)}, method="hidden")
  x_BTD = np.pad(batch["source"], ((0, 0), (0, 1)))
  embed = lambda side, ids: model.apply({"params": params}, ids, method=lambda model, ids: getattr(model, side)(ids))
  x_BTD = embed("source_embedding", x_BTD) + embed("target_embedding", batch["inputs"])
  assert_close(found, model.apply({"params": params}, x_BTD, method="close"))


@pytest.mark.parametrize("rules", ["data_parallel", "fsdp"])
def test_one_device_equals_eight(rules):
  config = dataclasses.replace(SMALL, max_rate=2)
  assert_one_device_equals_eight(bytenet, config, random_params(config), batch_of(*draw(5, 6, rows=8)), rules)


@pytest.mark.parametrize(
  ("fields", "complaint"),
  [
    (dict(residual="glu"), "model.residual must be one of"),
    (dict(max_rate=12), "model.max_rate must be a power of two, got 12"),
    (dict(kernel_size=0), "model.kernel_size must be at least 1"),
    (dict(a=0.9), "model.a must be at least 1"),
    (dict(dtype="float16"), "model.dtype"),
    (dict(dropout=1.5), "model.dropout"),
  ],
)
def test_bad_configs_are_told(fields, complaint):
  with pytest.raises(ValueError, match=complaint):
    dataclasses.replace(SMALL, **fields)
