"""What the tests of recurrent encoder-decoders share: two sentence pairs in one row, and holding a model against loops.

A loop is a function (params, source ids, input ids) -> logits TV of one pair, float64, written from the paper.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from attention_zoo.training import sharding
from tests.ops.against import assert_close, assert_matches

# (source, input) ids; input begins with BOS.
PAIRS = (([5, 7, 2], [1, 4, 9, 3]), ([8, 3, 6, 10, 2], [1, 7, 5]))


def rows(*rows, S, T):
  """A batch with the sentence pairs of each row one behind the other, and padding of random tokens."""
  rng = np.random.default_rng(0)
  names = ("source", "source_segments", "source_positions"), ("inputs", "target_segments", "target_positions")
  batch = {}
  for side, (length, (ids, segments, positions)) in enumerate(zip((S, T), names, strict=True)):
    shape = len(rows), length
    batch |= {ids: rng.integers(0, 11, shape), segments: np.zeros(shape), positions: np.zeros(shape)}
    for row, pairs in enumerate(rows):
      at = 0
      for number, pair in enumerate(pairs, 1):
        end = at + len(pair[side])
        batch[ids][row, at:end] = pair[side]
        batch[segments][row, at:end] = number
        batch[positions][row, at:end] = np.arange(end - at)
        at = end
  batch["targets"] = np.roll(batch["inputs"], -1, 1)
  return {name: jnp.asarray(value, jnp.int32) for name, value in batch.items()}


def random_parameters(module, config, seed=0):
  batch = rows(PAIRS, S=10, T=8)
  shapes = jax.eval_shape(module.Model(config).init, jax.random.key(0), batch)["params"]
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape), shapes)


def assert_is_the_papers(module, config, loops, tolerance=1e-5):
  """Two pairs that share a row, with padding behind them: logits and the gradient of every parameter."""
  leaves, tree = jax.tree.flatten(random_parameters(module, config))
  batch, model = rows(PAIRS, S=10, T=8), module.Model(config)
  real = np.flatnonzero(batch["target_segments"][0])

  def ours(*leaves):
    return model.apply({"params": tree.unflatten(leaves)}, batch)[0, real]

  def wanted(*leaves):
    params = tree.unflatten(leaves)
    return np.concatenate([loops(params, *pair) for pair in PAIRS])

  assert_matches(ours, wanted, *leaves, tolerance=tolerance)


def assert_one_device_equals_eight(module, config, scale=1.0, train=False):
  """Loss and gradients with the rows shared, and with the parameters shared too; no step of a scan waits for others.

  scale: of the parameters, where a path without nonlinearity would make large numbers of them. train: as in training,
  with noise and with what layers add to the loss.
  """
  params = jax.tree.map(lambda x: jnp.asarray(scale * x, jnp.float32), random_parameters(module, config))
  batch = rows(*[PAIRS, PAIRS[::-1]] * 4, S=10, T=8)
  model = module.Model(config)

  def loss(params, batch):
    rngs = {"dropout": jax.random.key(0)} if train else None
    logits, sown = model.apply({"params": params}, batch, train=train, rngs=rngs, mutable=["losses"])
    return jnp.square(logits * (batch["target_segments"] > 0)[..., None]).mean() + sum(jax.tree.leaves(sown))

  step = jax.value_and_grad(loss)
  one = jax.jit(step)(params, batch)
  for rules, shape in (("data_parallel", (1, 8, 1, 1)), ("fsdp", (1, 4, 2, 1))):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]).reshape(shape), sharding.AXES)
    places = sharding.shardings(sharding.RULES[rules], params, mesh)
    everywhere = NamedSharding(mesh, jax.sharding.PartitionSpec())
    many = jax.jit(step, in_shardings=(places, sharding.batch_sharding(mesh)), out_shardings=(everywhere, places))
    placed = jax.device_put(params, places), jax.device_put(batch, sharding.batch_sharding(mesh))
    compiled = many.lower(*placed).compile()
    jax.tree.map(functools.partial(assert_close, tolerance=1e-5), compiled(*placed), one)
    if rules == "data_parallel":
      assert not talking_loops(compiled.as_text())


def talking_loops(text):
  """The loops of compiled code that exchange something between devices at every step."""
  bodies = {line.split("body=")[1].split(",")[0].split()[0] for line in text.splitlines() if "while(" in line}
  assert bodies
  talk = ("all-reduce(", "all-gather(", "all-to-all(", "collective-permute(", "reduce-scatter(")
  return [b for b in text.split("\n\n") if b.split(" ", 1)[0] in bodies and any(word in b for word in talk)]


# For the loops


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def rnn(p, x, state, extra=()):
  """One step; p: kernel_DA of x, context_UA of `extra`, recurrent_FA, bias_A."""
  (h,) = state
  return (np.tanh(_inputs(p, x, extra) + h @ p["recurrent_FA"]),)


def lstm(p, x, state, extra=()):
  h, c = state
  i, f, g, o = np.split(_inputs(p, x, extra) + h @ p["recurrent_FA"], 4)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return sigmoid(o) * np.tanh(c), c


def gru(p, x, state, extra=()):
  """In the form of Bahdanau et al. 2015: z lets the new state in, and has the other sign here."""
  (s,) = state
  F = len(s)
  r_U, z_U, U = (p["recurrent_FA"][:, i * F : (i + 1) * F] for i in range(3))
  r_in, z_in, in_ = np.split(_inputs(p, x, extra), 3)
  r, z = sigmoid(r_in + s @ r_U), sigmoid(-(z_in + s @ z_U))
  new = np.tanh(in_ + (r * s) @ U)
  return ((1 - z) * s + z * new,)


CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}


def _inputs(p, x, extra):
  total = p["bias_A"].copy()
  if x is not None:
    total += x @ p["kernel_DA"]
  if len(extra):
    total += np.concatenate(extra) @ p["context_UA"]
  return total


def read(cell, p, xs, reverse=False, state=None):
  """The state after each word, in the order of the words."""
  F = len(p["recurrent_FA"])
  state = state or (np.zeros(F),) * (2 if cell == "lstm" else 1)
  states = [None] * len(xs)
  for t in reversed(range(len(xs))) if reverse else range(len(xs)):
    states[t] = state = CELLS[cell](p, xs[t], state)
  return states
