"""Small Transformers, sentence pairs for them, and the functions that their tests share.

Eight sentence pairs of different lengths stand one in a row, or two in a row (packed). Parameters are random in every
leaf, biases and scales too, so that nothing hides behind an initial zero.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.layers.attention import MultiHeadAttention
from attention_zoo.layers.transformer import Embedding
from attention_zoo.models.translation import transformer

# No two dimensions are alike, so that none can be taken for another.
POST = transformer.Config(
  vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_encoder_layers=1, num_decoder_layers=2, dropout=0.0
)
SHALLOW = dataclasses.replace(POST, num_decoder_layers=1)
MODELS = {
  "post": POST,
  "pre": dataclasses.replace(SHALLOW, residual="pre"),
  "learned": dataclasses.replace(SHALLOW, positions="learned", max_length=15),
  "d_k != d_v": dataclasses.replace(POST, num_heads=3, d_k=2, d_v=5),
  "bfloat16": dataclasses.replace(SHALLOW, dtype="bfloat16", matmul_dtype="bfloat16"),
  "bfloat16 products": dataclasses.replace(SHALLOW, matmul_dtype="bfloat16"),
}
BOS = 1
SOURCE_LENGTHS = (6, 1, 3, 5, 2, 4, 6, 5)
TARGET_LENGTHS = (7, 4, 1, 7, 3, 6, 2, 5)
KEYS = "source source_segments source_positions inputs targets target_segments target_positions".split()


def sentences():
  rng = np.random.default_rng(0)
  draw = lambda length: rng.integers(2, POST.vocab_size, length)
  return [(draw(s), np.append(BOS, draw(t - 1))) for s, t in zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)]


def lay_out(rows, S, T, garbage=0):
  """A batch with the sentence pairs of each row one behind the other. Padding has random content where garbage."""
  rng = np.random.default_rng(garbage)
  noise = lambda length, high: rng.integers(0, high, (len(rows), length)) if garbage else np.zeros((len(rows), length))
  lengths = {"source": S, "inputs": T, "targets": T}
  batch = {key: noise(lengths[key], POST.vocab_size) for key in ("source", "inputs", "targets")}
  for side, length in (("source", S), ("target", T)):
    batch[f"{side}_segments"] = np.zeros((len(rows), length))
    batch[f"{side}_positions"] = noise(length, length)
  for r, pairs in enumerate(rows):
    starts = {"source": 0, "target": 0}
    for number, (source, inputs) in enumerate(pairs, 1):
      for side, key, ids in (("source", "source", source), ("target", "inputs", inputs)):
        at = slice(starts[side], starts[side] + len(ids))
        batch[key][r, at] = ids
        batch[f"{side}_segments"][r, at] = number
        batch[f"{side}_positions"][r, at] = np.arange(len(ids))
        starts[side] += len(ids)
  return {key: jnp.asarray(batch[key], jnp.int32) for key in KEYS}


def alone(order=range(8), garbage=0):
  pairs = sentences()
  return lay_out([[pairs[i]] for i in order], 6, 7, garbage)


def packed(garbage=0):
  pairs = sentences()
  return lay_out([pairs[i : i + 2] for i in range(0, 8, 2)], 12, 14, garbage)


def random_parameters(model, scale=0.3):
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), alone()))["params"]
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    return jnp.asarray(rng.normal(path[-1].key == "scale", scale, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
class Case:
  """One variant, its parameters, and the functions that its tests share, each compiled once for each shape."""

  def __init__(self, config):
    self.config = config
    self.model = transformer.Transformer(config)
    self.params = random_parameters(self.model)
    self.exact = config.dtype == config.matmul_dtype == "float32"
    self.tolerance = 1e-5 if self.exact else 5e-2

  def apply(self, params, batch):
    return self.model.apply({"params": params}, batch)

  @functools.cached_property
  def logits_and_gradient(self):
    """(logits_BTV, gradient of a fixed function of the logits of real tokens)."""

    @jax.jit
    def run(params, batch):
      def score(params):
        logits_BTV = self.apply(params, batch)
        weights_BTV = jnp.cos(jnp.arange(logits_BTV.size).reshape(logits_BTV.shape))
        real_BT1 = (batch["target_segments"] > 0)[..., None]
        return jnp.where(real_BT1, logits_BTV * weights_BTV, 0).sum(), logits_BTV

      gradient, logits_BTV = jax.grad(score, has_aux=True)(params)
      return logits_BTV, gradient

    return run

  @functools.cached_property
  def logits_and_jacobians(self):
    """(logits_BTV, slopes): slopes[side][t, b, s] is how output t of row b hangs on the embedding of token s."""

    @jax.jit
    def run(params, batch):
      def score(deltas):
        def add(next_function, args, kwargs, context):
          out = next_function(*args, **kwargs)
          if isinstance(context.module, Embedding) and context.method_name == "__call__":
            out += next(delta for delta in deltas.values() if delta.shape == out.shape)
          return out

        with nn.intercept_methods(add):
          logits_BTV = self.apply(params, batch)
        weights_V = jnp.cos(jnp.arange(logits_BTV.shape[-1]))
        return jnp.einsum("BTV,V->T", logits_BTV, weights_V), logits_BTV

      lengths = {"source": batch["source"].shape, "target": batch["inputs"].shape}
      deltas = {side: jnp.zeros((*shape, self.config.d_model), self.config.dtype) for side, shape in lengths.items()}
      slopes, logits_BTV = jax.jacrev(score, has_aux=True)(deltas)
      return logits_BTV, {side: jnp.abs(slope).max(-1) for side, slope in slopes.items()}

    return run

  @functools.cached_property
  def logits(self):
    return np.asarray(self.logits_and_gradient(self.params, alone())[0])

  @functools.cached_property
  def unjitted(self):
    """(logits_BTV, sown intermediates, {path: (memory, output)} of every multi-head attention), without jit."""
    seen = {}

    def listen(next_function, args, kwargs, context):
      out = next_function(*args, **kwargs)
      if isinstance(context.module, MultiHeadAttention) and context.method_name == "__call__":
        seen[context.module.path] = (args[1], out)
      return out

    with nn.intercept_methods(listen):
      logits_BTV, state = self.model.apply({"params": self.params}, alone(), mutable=["intermediates"])
    return logits_BTV, state["intermediates"], seen


def assert_close(actual, wanted, tolerance):
  np.testing.assert_allclose(np.asarray(actual, np.float64), np.asarray(wanted, np.float64), tolerance, tolerance)
