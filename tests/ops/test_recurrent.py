"""Recurrent layers against loops over batch, time and gates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import recurrent
from tests.ops.against import (
  as_float32,
  assert_bfloat16,
  assert_close,
  assert_matches,
  assert_same_on_eight_devices,
  normal,
)

B, T, D, F = 2, 5, 3, 4
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
LAYERS = {name: getattr(recurrent, name) for name in GATES}
CELLS = pytest.mark.parametrize("name", GATES)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def arguments(name, batch=B, length=T):
  A = GATES[name] * F
  return normal(1, (batch, length, D), (D, A), (F, A), (A,))


def oracle(name, x, w, u, b, mask=None, reverse=False):
  batch, length, _ = x.shape
  out = np.zeros((batch, length, F))
  for n in range(batch):
    h, c = np.zeros(F), np.zeros(F)
    for t in reversed(range(length)) if reverse else range(length):
      if mask is not None and not mask[n, t]:
        continue
      gate = lambda i, state: (
        x[n, t] @ w[:, i * F : (i + 1) * F] + state @ u[:, i * F : (i + 1) * F] + b[i * F : (i + 1) * F]
      )
      if name == "rnn":
        h = np.tanh(gate(0, h))
      elif name == "gru":
        r, z = sigmoid(gate(0, h)), sigmoid(gate(1, h))
        h = z * h + (1 - z) * np.tanh(gate(2, r * h))
      else:
        c = sigmoid(gate(1, h)) * c + sigmoid(gate(0, h)) * np.tanh(gate(2, h))
        h = sigmoid(gate(3, h)) * np.tanh(c)
      out[n, t] = h
  return out


MASK = np.array([[True] * 5, [True] * 3 + [False] * 2])


@CELLS
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_layer_is_the_papers_equations(name, mask, reverse):
  options = {"reverse": reverse}
  assert_matches(
    lambda *a: LAYERS[name](*a, mask_BT=None if mask is None else jnp.asarray(mask), **options)[0],
    lambda *a: oracle(name, *a, mask=mask, **options),
    *arguments(name),
  )


@CELLS
def test_padding_changes_neither_outputs_nor_state(name):
  x, *rest = as_float32(arguments(name))
  short, state = LAYERS[name](x[1:, :3], *rest)
  padded, padded_state = LAYERS[name](x, *rest, mask_BT=jnp.asarray(MASK))
  assert_close(padded[1, :3], short[0], 1e-6)
  assert not padded[1, 3:].any()
  for a, b in zip(padded_state, state, strict=True):
    assert_close(a[1], b[0], 1e-6)


@CELLS
def test_two_halves_are_the_whole(name):
  x, *rest = as_float32(arguments(name))
  whole, end = LAYERS[name](x, *rest)
  first, state = LAYERS[name](x[:, :2], *rest)
  second, state = LAYERS[name](x[:, 2:], *rest, state=state)
  assert_close(jnp.concatenate([first, second], axis=1), whole, 1e-6)
  assert_close(jnp.stack(state), jnp.stack(end), 1e-6)


@CELLS
def test_a_step_of_the_cell_is_a_step_of_the_layer(name):
  x, w, u, b = as_float32(arguments(name))
  _, state = LAYERS[name](x[:, :3], w, u, b)
  _, wanted = LAYERS[name](x[:, :4], w, u, b)
  got = getattr(recurrent, f"{name}_cell")(x[:, 3] @ w + b[None], state, u)
  assert_close(jnp.stack(got), jnp.stack(wanted), 1e-6)


@CELLS
def test_sees_the_past_only_and_minds_the_order(name):
  x, *rest = as_float32(arguments(name))
  gradient = jax.grad(lambda x: LAYERS[name](x, *rest)[0][:, 2].sum())(x)
  assert not gradient[:, 3:].any()
  assert gradient[:, :3].any(-1).all()
  swapped = LAYERS[name](x[:, ::-1], *rest)[0][:, ::-1]
  assert np.abs(swapped - LAYERS[name](x, *rest)[0]).max() > 0.1


@CELLS
def test_bfloat16(name):
  assert_bfloat16(lambda *a: LAYERS[name](*a)[0], partial(oracle, name), *arguments(name, length=40), bound=8e-3)


@CELLS
@pytest.mark.parametrize("batch, length", [(0, 5), (2, 0), (1, 1)])
def test_empty_and_one_element(name, batch, length):
  arrays = arguments(name, batch, length)
  out, _ = LAYERS[name](*as_float32(arrays))
  assert_close(out, oracle(name, *arrays))


def test_one_device_equals_eight():
  arrays = as_float32(arguments("lstm", batch=8))
  specs = [("all",), (), (), ()]
  assert_same_on_eight_devices(lambda *a: recurrent.lstm(*a)[0], arrays, specs, ("all",))


@pytest.mark.parametrize(
  "change, message",
  [
    ({"x_BTD": jnp.zeros((T, D))}, r"x_BTD has shape \(5, 3\), wanted BTD"),
    ({"input_DA": jnp.zeros((D + 1, 4 * F))}, r"input_DA has shape \(4, 16\), wanted DA = \(3, 16\)"),
    ({"bias_A": jnp.zeros(F)}, r"bias_A has shape \(4,\), wanted A = \(16\)"),
    ({"mask_BT": jnp.ones((B, T + 1), bool)}, r"mask_BT has shape \(2, 6\), wanted BT = \(2, 5\)"),
    ({"mask_BT": jnp.ones((B, T))}, "mask_BT must be bool"),
    ({"state": (jnp.zeros((B, F)),)}, r"state has shapes \[\(2, 4\)\], wanted 2 of BF = \(2, 4\)"),
    (
      {"recurrent_FA": jnp.zeros((F, F)), "input_DA": jnp.zeros((D, F)), "bias_A": jnp.zeros(F)},
      r"recurrent_FA has shape \(4, 4\), wanted FA = \(4, 16\)",
    ),
  ],
)
def test_bad_input(change, message):
  x, w, u, b = as_float32(arguments("lstm"))
  good = {"x_BTD": x, "input_DA": w, "recurrent_FA": u, "bias_A": b}
  with pytest.raises(ValueError, match=message):
    recurrent.lstm(**good | change)


@CELLS
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gradients_are_those_of_the_cell_step_by_step(name, mask, reverse):
  x, w, u, b = as_float32(arguments(name))
  states = 2 if name == "lstm" else 1
  start = tuple(as_float32(normal(7, *[(B, F)] * states)))
  weights, *ends = as_float32(normal(8, (B, T, F), *[(B, F)] * states))
  cell = getattr(recurrent, f"{name}_cell")

  def total(out, state):
    return (out * weights).sum() + sum((a * b).sum() for a, b in zip(state, ends, strict=True))

  def by_layer(x, w, u, b, start):
    real = None if mask is None else jnp.asarray(mask)
    return total(*LAYERS[name](x, w, u, b, mask_BT=real, state=start, reverse=reverse))

  def by_steps(x, w, u, b, state):
    out = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
      new = cell(x[:, t] @ w + b[None], state, u)
      real = np.ones((B, 1), bool) if mask is None else mask[:, t, None]
      state = tuple(jnp.where(real, a, b) for a, b in zip(new, state, strict=True))
      out[t] = jnp.where(real, new[0], 0.0)
    return total(jnp.stack(out, 1), state)

  found, wanted = (jax.grad(f, argnums=(0, 1, 2, 3, 4))(x, w, u, b, start) for f in (by_layer, by_steps))
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), found, wanted)


@CELLS
def test_devices_that_share_the_rows_add_gradients_once_and_not_at_every_step(name):
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P

  mesh = jax.make_mesh((8,), ("data",))
  rows, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
  x, *rest = as_float32(arguments(name, batch=8))
  loss = lambda x, *rest: LAYERS[name](x, *rest)[0].sum()
  gradient = jax.jit(
    jax.grad(loss, argnums=(1, 2, 3)), in_shardings=(rows, *[everywhere] * 3), out_shardings=everywhere
  )
  text = gradient.lower(x, *rest).compile().as_text()
  loops = {line.split("body=")[1].split(",")[0].split()[0] for line in text.splitlines() if "while(" in line}
  assert loops and "all-reduce(" in text
  for body in text.split("\n\n"):
    if body.split(" ", 1)[0] in loops:
      assert "all-reduce(" not in body


# Several texts in a row


@CELLS
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_reset_begins_anew(name, reverse):
  """Two texts in a row are what they are apart, with first states of their own or zeros."""
  x, *rest = as_float32(arguments(name))
  states = 2 if name == "lstm" else 1
  starts = tuple(as_float32(normal(9, *[(B, T, F)] * states)))
  first_T = np.array([0, 2]) if not reverse else np.array([1, T - 1])  # of [0, 2) and [2, T), as they are read
  reset_BT = jnp.zeros((B, T), bool).at[:, first_T].set(True)
  options = {"reverse": reverse, "return_states": True}
  for given in (None, starts):
    h, all_states = LAYERS[name](x, *rest, reset_BT=reset_BT, starts=given, **options)
    for part, at in zip((slice(0, 2), slice(2, T)), first_T, strict=True):
      state = None if given is None else tuple(start[:, at] for start in given)
      wanted, wanted_states = LAYERS[name](x[:, part], *rest, state=state, **options)
      assert_close(h[:, part], wanted, 1e-6)
      assert_close(jnp.stack(all_states)[:, :, part], jnp.stack(wanted_states), 1e-6)


def test_states_that_do_not_fit_are_told():
  x, *rest = as_float32(arguments("lstm"))
  with pytest.raises(ValueError, match=r"starts has shapes \[\(2, 4\)\], wanted 2 of BTF = \(2, 5, 4\)"):
    recurrent.lstm(x, *rest, reset_BT=jnp.ones((B, T), bool), starts=(jnp.zeros((B, F)),))


# Any recurrence


def attending_step(multiply, h_BF, inputs, context):
  """A step with a product that something is added to, one that nothing is, and marks that have no gradient."""
  reset_B1, keys_BSF = inputs["reset"], context["keys"]
  h_BF = jnp.where(reset_B1, inputs["start"], h_BF)
  weights_BS = jax.nn.softmax(jnp.einsum("BF,BSF->BS", multiply("query", h_BF), keys_BSF) * context["scale"])
  out_BF = jnp.tanh(multiply("gates", jnp.concatenate([h_BF, jnp.einsum("BS,BSF->BF", weights_BS, keys_BSF)], -1)))
  return out_BF, (weights_BS, h_BF)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_scan_has_the_gradients_of_the_plain_one(reverse):
  S = 3
  arrays = normal(2, (F, F), (2 * F, F), (T, B, F), (B, F), (T, B, F), (B, S, F), (T, B, S), (T, B, F), (B, F))
  query, gates, added, state, start, keys, *weights = as_float32(arrays)
  reset = jnp.asarray(np.random.default_rng(0).random((T, B, 1)) < 0.4)
  positions = jnp.arange(S)  # whole numbers may stand in the context

  def total(scan, query, gates, added, state, start, keys, scale):
    inputs, context = {"reset": reset, "start": start}, {"keys": keys, "scale": scale, "positions": positions}
    state, outputs = scan({"query": query, "gates": gates}, {"gates": added}, state, inputs, context)
    return sum((a * b).sum() for a, b in zip((*outputs, state), weights, strict=True))

  def plain(kernels, added, state, inputs, context):
    def one(state, now):
      inputs, added = now
      multiply = lambda name, x: x @ kernels[name] + added.get(name, 0.0)
      return attending_step(multiply, state, inputs, context)

    return jax.lax.scan(one, state, (inputs, added), reverse=reverse)

  ours = partial(recurrent.scan, attending_step, reverse=reverse)
  both = [
    jax.jit(jax.value_and_grad(partial(total, scan), argnums=range(7)))(
      query, gates, added, state, start, keys, jnp.float32(0.7)
    )
    for scan in (ours, plain)
  ]
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), *both)


def test_a_kernel_is_multiplied_once_a_step():
  def step(multiply, h_BF, inputs, context):
    return multiply("a", multiply("a", h_BF)), None

  with pytest.raises(ValueError, match="the kernel 'a' is multiplied twice in a step"):
    recurrent.scan(step, {"a": jnp.eye(F)}, {}, jnp.zeros((B, F)), jnp.zeros((T, B)))


@CELLS
def test_gradients_end_where_a_step_is_told_to_stop_them(name):
  """Values stay; what comes before the mark gets no gradient from what comes after it."""
  x, *rest = as_float32(arguments(name))
  stop_BT = jnp.zeros((B, T), bool).at[0, T - 2].set(True)
  run = jax.jit(lambda x, stop_BT: LAYERS[name](x, *rest, stop_BT=stop_BT)[0])
  np.testing.assert_array_equal(run(x, stop_BT), run(x, jnp.zeros_like(stop_BT)))
  seen_BT = np.abs(jax.grad(lambda x: run(x, stop_BT)[:, -1].sum())(x)).sum(-1) > 0
  np.testing.assert_array_equal(seen_BT[0], [False] * (T - 2) + [True] * 2)
  assert seen_BT[1:].all()
